// Elements built from code. No string ever becomes markup here, and the server's policy (Trusted
// Types) refuses it anyway.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined>;
type Listeners = { [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void };

const SVG = "http://www.w3.org/2000/svg";

// true is an empty attribute; false, null and undefined are none.
function setAttributes(element: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (/^(on|style$|srcdoc$)/i.test(name)) throw new Error(`attribute ${name} is not allowed`);
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  append(element, ...children);
  return element;
}

export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  setAttributes(element, attributes);
  append(element, ...children);
  return element;
}

export function append(parent: Node, ...children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(typeof child === "string" ? document.createTextNode(child) : child);
  }
}

export function on<E extends HTMLElement>(element: E, listeners: Listeners): E {
  for (const [type, listener] of Object.entries(listeners)) {
    element.addEventListener(type, listener as EventListener);
  }
  return element;
}

export function replace(parent: Node, ...children: Child[]): void {
  while (parent.firstChild) parent.removeChild(parent.firstChild);
  append(parent, ...children);
}

// Strokes of 24 x 24 icons.
const ICONS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M5.5 11.5 12 5l6.5 6.5",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  check: "M5 12.5 10 17.5 19.5 7",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  refresh: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3L20 9.4M20 4.5v4.9h-4.9",
  trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  sliders: "M4 8h9M17 8h3M4 16h3M11 16h9M15 5.5v5M9 13.5v5",
  chart: "M4 20V4M4 20h16M8 15l3.5-4 3 2.5L20 7",
  gear:
    "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6M12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.1 2.1M16.3 16.3" +
    "l2.1 2.1M5.6 18.4l2.1-2.1M16.3 7.7l2.1-2.1",
  close: "M6 6l12 12M18 6 6 18",
  left: "M14.5 6 8.5 12l6 6",
  right: "M9.5 6l6 6-6 6",
  down: "M12 5v14M5.5 12.5 12 19l6.5-6.5",
  pulse: "M3 12h4l3-7 4 14 3-7h4",
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M8.5 5.5v13M15.5 5.5v13",
} as const;

export type IconName = keyof typeof ICONS;

export function icon(name: IconName): SVGSVGElement {
  return s(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    s("path", { d: ICONS[name] }),
  );
}

// A square, for stopping.
export function stopIcon(): SVGSVGElement {
  return s(
    "svg",
    { class: "icon solid", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    s("rect", { x: 7, y: 7, width: 10, height: 10, rx: 2 }),
  );
}

export function iconButton(name: IconName, label: string, action: () => void): HTMLButtonElement {
  const button = h(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label },
    icon(name),
  );
  return on(button, { click: action });
}

export function textButton(label: string, action: () => void, style = ""): HTMLButtonElement {
  return on(h("button", { type: "button", class: `button ${style}` }, label), { click: action });
}

/* An ordinary program that allocates, maps, copies, forks and has threads, and checks every byte.
 * Prints "ok". argv[1]: a file of 300,000 bytes, each its offset modulo 251. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                               \
  do {                                                                 \
    if (!(condition)) {                                                \
      fprintf(stderr, "line %d: %s is false\n", __LINE__, #condition); \
      _exit(3);                                                        \
    }                                                                  \
  } while (0)

static int all(const unsigned char* p, size_t bytes, unsigned char value) {
  for (size_t i = 0; i < bytes; ++i) {
    if (p[i] != value) return 0;
  }
  return 1;
}

static void blocks(void) {
  const size_t sizes[] = {1, 4000, 70000, 500000, 100, 200000, 65536, 65535, 3000000, 10};
  unsigned char* p = NULL;
  size_t held = 0;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) { /* across the threshold and back */
    p = realloc(p, sizes[i]);
    CHECK(p != NULL && all(p, held < sizes[i] ? held : sizes[i], 7));
    memset(p, 7, sizes[i]);
    held = sizes[i];
  }
  free(p);
  for (int round = 0; round < 3; ++round) { /* what was used before reads as zeros */
    p = calloc(1000, 300);
    CHECK(p != NULL && all(p, 300000, 0));
    memset(p, 9, 300000);
    free(p);
  }
  volatile size_t huge = SIZE_MAX / 2;
  CHECK(malloc(huge) == NULL);
  CHECK(calloc(huge, 3) == NULL);
  free(NULL);
}

static void mappings(const char* path) {
  unsigned char* p = mmap(NULL, 300000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(p != MAP_FAILED && all(p, 300000, 0));
  memset(p, 5, 300000);
  CHECK(munmap(p + 8192, 4096) == 0); /* a hole */
  CHECK(all(p, 8192, 5) && all(p + 12288, 100000, 5));
  CHECK(munmap(p, 8192) == 0 && munmap(p + 12288, 300000 - 12288) == 0);

  const int file = open(path, O_RDONLY);
  CHECK(file >= 0);
  const unsigned char* q = mmap(NULL, 300000, PROT_READ, MAP_PRIVATE, file, 0);
  const unsigned char* tail = mmap(NULL, 200000, PROT_READ, MAP_PRIVATE, file, 102400);
  const unsigned char* shared = mmap(NULL, 300000, PROT_READ, MAP_SHARED, file, 0);
  CHECK(q != MAP_FAILED && tail != MAP_FAILED && shared != MAP_FAILED);
  for (size_t i = 0; i < 300000; ++i) CHECK(q[i] == i % 251 && shared[i] == q[i]);
  for (size_t i = 102400; i < 300000; ++i) CHECK(tail[i - 102400] == i % 251);
  CHECK(munmap((void*)q, 300000) == 0 && munmap((void*)tail, 200000) == 0);
  CHECK(munmap((void*)shared, 300000) == 0);
  CHECK(mmap(NULL, 300000, PROT_READ, MAP_PRIVATE, -1, 0) == MAP_FAILED);
  close(file);
}

/* Rows of a matrix, copied out one after the other, three times. */
static void row_scans(void) {
  enum { ROW_COUNT = 50, ROW_BYTES = 4096, STRIDE = 5000 };
  unsigned char* matrix = malloc(ROW_COUNT * STRIDE);
  unsigned char row[ROW_BYTES];
  memset(matrix, 3, ROW_COUNT * STRIDE);
  for (int time = 0; time < 3; ++time) {
    for (size_t r = 0; r < ROW_COUNT; ++r) {
      memcpy(row, matrix + r * STRIDE, ROW_BYTES);
      CHECK(all(row, ROW_BYTES, 3));
    }
  }
  for (size_t i = 0; i < 100000; ++i) matrix[i] = (unsigned char)i;
  memmove(matrix + 7, matrix, 100000);
  for (size_t i = 0; i < 100000; ++i) CHECK(matrix[7 + i] == (unsigned char)i);
  free(matrix);
}

static void* worker(void* seed) {
  uint64_t state = (uint64_t)(uintptr_t)seed;
  unsigned char* held[8] = {0};
  size_t sizes[8] = {0};
  for (int i = 0; i < 400; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const size_t slot = state >> 61;
    const size_t bytes = 1 + (state >> 30) % 200000;
    CHECK(all(held[slot], sizes[slot], (unsigned char)(slot + 1)));
    if ((state >> 20) % 3 == 0) {
      free(held[slot]);
      held[slot] = malloc(bytes);
    } else {
      held[slot] = realloc(held[slot], bytes);
    }
    CHECK(held[slot] != NULL);
    memset(held[slot], (int)(slot + 1), sizes[slot] = bytes);
  }
  for (int slot = 0; slot < 8; ++slot) free(held[slot]);
  return NULL;
}

static void threads_and_forks(void) {
  pthread_t threads[4];
  for (uintptr_t i = 0; i < 4; ++i) pthread_create(&threads[i], NULL, worker, (void*)(i + 1));
  for (uintptr_t i = 0; i < 6; ++i) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      worker((void*)(i + 100));
      _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
}

int main(int argc, char** argv) {
  CHECK(argc == 2);
  blocks();
  mappings(argv[1]);
  row_scans();
  threads_and_forks();
  printf("ok\n");
  return 0;
}

/* One of several parts: a small sorted table of words. */
#include "config.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN2(name, part) name##part
#define JOIN(name, part) JOIN2(name, part)
#define OWN(name) JOIN(name, PART)

struct entry {
  char *word;
  uint64_t count;
};

static struct entry *entries;
static size_t used, room;

static int by_word(const void *a, const void *b) { return strcmp(((const struct entry *)a)->word, ((const struct entry *)b)->word); }

static void add(const char *from, size_t length) {
  for (size_t i = 0; i < used; i++) {
    if (strncmp(entries[i].word, from, length) == 0 && entries[i].word[length] == 0) {
      entries[i].count++;
      return;
    }
  }
  if (used == room) {
    room = room ? 2 * room : 16;
    entries = realloc(entries, room * sizeof *entries);
    if (!entries) abort();
  }
  entries[used].word = strndup(from, length);
  entries[used++].count = 1;
}

int OWN(words)(const char *text, FILE *out) {
  while (*text) {
    const char *end = text;
    while (isalnum((unsigned char)*end)) end++;
    if (end > text) add(text, (size_t)(end - text));
    text = *end ? end + 1 : end;
  }
  qsort(entries, used, sizeof *entries, by_word);
  for (size_t i = 0; i < used; i++) fprintf(out, "%d %s %llu\n", PART, entries[i].word, (unsigned long long)entries[i].count);
  return (int)used;
}

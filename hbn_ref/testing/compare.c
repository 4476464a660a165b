/* Reads the cases of `python -m hbn_ref cases DIR` (words of 64 bits) and compares a kernel with their counts:
   cc -O2 compare.c -o compare && ./compare .      Put your kernel in the place of this one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct { int n, h, w, c, kh, kw, o, oh, ow, words, sh, sw, ph, pw, pad; } Case;

static void kernel(const Case *k, const uint64_t *x, const uint64_t *w, int32_t *out) {
    for (int n = 0; n < k->n; n++) for (int i = 0; i < k->oh; i++) for (int j = 0; j < k->ow; j++)
    for (int o = 0; o < k->o; o++) {
        int sum = 0; /* matches minus mismatches */
        for (int a = 0; a < k->kh; a++) for (int b = 0; b < k->kw; b++) {
            int y = i * k->sh + a - k->ph, z = j * k->sw + b - k->pw, differ = 0;
            int inside = y >= 0 && y < k->h && z >= 0 && z < k->w;
            if (!inside && k->pad == 0) continue;
            const uint64_t *q = w + ((size_t)(a * k->kw + b) * k->o + o) * k->words;
            const uint64_t *p = inside ? x + ((size_t)(n * k->h + y) * k->w + z) * k->words : NULL;
            for (int v = 0; v < k->words; v++) differ += __builtin_popcountll((p ? p[v] : 0) ^ q[v]);
            if (!inside && k->pad == 1) differ = k->c - differ; /* against +1 what is 1 agrees */
            sum += k->c - 2 * differ;
        }
        *out++ = sum;
    }
}

static void *load(const char *dir, const char *name, const char *end, size_t bytes) {
    char path[4096]; snprintf(path, sizeof path, "%s/%s.%s", dir, name, end);
    FILE *f = fopen(path, "rb"); void *p = malloc(bytes);
    if (!f || !p || fread(p, 1, bytes, f) != bytes) { perror(path); exit(2); }
    fclose(f); return p;
}

int main(int argc, char **argv) {
    const char *dir = argc > 1 ? argv[1] : "."; char path[4096], line[4096], name[16]; Case k; int cases = 0, bad = 0;
    snprintf(path, sizeof path, "%s/index.json", dir);
    FILE *f = fopen(path, "r"); if (!f) { perror(path); return 2; }
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "{\"name\": \"%15[0-9]\", \"x\": [%d, %d, %d, %d], \"w\": [%d, %d, %*d, %d], \"counts\": [%*d, %d, "
                   "%d, %*d], \"words\": %d, \"stride\": [%d, %d], \"padding\": [%d, %d], \"pad_value\": %d", name, &k.n,
                   &k.h, &k.w, &k.c, &k.kh, &k.kw, &k.o, &k.oh, &k.ow, &k.words, &k.sh, &k.sw, &k.ph, &k.pw, &k.pad) != 16)
            continue;
        size_t count = (size_t)k.n * k.oh * k.ow * k.o, i = 0;
        uint64_t *x = load(dir, name, "xw", 8 * (size_t)k.n * k.h * k.w * k.words);
        uint64_t *w = load(dir, name, "ww", 8 * (size_t)k.kh * k.kw * k.o * k.words);
        int32_t *want = load(dir, name, "counts", 4 * count), *got = malloc(4 * count);
        kernel(&k, x, w, got);
        while (i < count && got[i] == want[i]) i++;
        if (i < count) { bad++; printf("%s: count %zu: expected %d, got %d\n  %s", name, i, want[i], got[i], line); }
        free(x); free(w); free(want); free(got); cases++;
    }
    printf("%d of %d cases agree\n", cases - bad, cases);
    return bad || !cases;
}

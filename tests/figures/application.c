/* The application of the measurements: commits small transactions at full speed or at a rate, with readers
 * beside it if asked for, and prints one JSON object with the time that each commit took.
 *
 *   application DATABASE SECONDS COMMITS_PER_SECOND READERS READ_MS MEGABYTES_AT_ONCE
 *
 * COMMITS_PER_SECOND 0: as many as go. READERS threads hold a read transaction of READ_MS each, over and over,
 * out of step. MEGABYTES_AT_ONCE: one transaction of that size first, timed by itself. It waits for no lock by
 * itself longer than 10 s (busy_timeout), and counts the commits that were refused.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sqlite3.h"

enum { ROWS = 5000, SAMPLES = 1 << 23 };

static atomic_int stopping;
static const char *path;
static int read_ms;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_until(double when) {
    struct timespec t = {(time_t)when, (long)((when - (double)(time_t)when) * 1e9)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void must(sqlite3 *db, int code, const char *what) {
    if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) return;
    fprintf(stderr, "%s: %s\n", what, db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
    exit(1);
}

static void run(sqlite3 *db, const char *sql) { must(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql); }

static sqlite3 *open_database(void) {
    sqlite3 *db = NULL;
    must(db, sqlite3_open(path, &db), "open");
    sqlite3_busy_timeout(db, 10000);
    run(db, "PRAGMA synchronous = NORMAL");
    return db;
}

static void *read_over_and_over(void *phase) {
    sqlite3 *db = open_database();
    pause_until(now() + *(double *)phase);
    while (!stopping) {
        run(db, "BEGIN; SELECT count(*) FROM item WHERE id < 100");
        double end = now() + read_ms / 1e3;
        while (!stopping && now() < end) pause_until(end < now() + 0.1 ? end : now() + 0.1);
        run(db, "COMMIT");
    }
    sqlite3_close(db);
    return NULL;
}

static int ascending(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    path = arguments[1];
    double seconds = atof(arguments[2]), rate = atof(arguments[3]);
    int readers = atoi(arguments[4]), megabytes = atoi(arguments[6]);
    read_ms = atoi(arguments[5]);
    sqlite3 *db = open_database();
    run(db, "PRAGMA journal_mode = WAL");

    pthread_t threads[64];
    double phases[64];
    for (int reader = 0; reader < readers && reader < 64; reader++) {
        phases[reader] = (double)reader * read_ms / 1e3 / readers;
        pthread_create(&threads[reader], NULL, read_over_and_over, &phases[reader]);
    }

    double big = 0;
    if (megabytes) {
        double began = now();
        sqlite3_stmt *insert;
        run(db, "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS big (body BLOB)");
        must(db, sqlite3_prepare_v2(db, "INSERT INTO big VALUES (randomblob(524288) || zeroblob(524288))", -1, &insert, NULL), "prepare");
        for (int row = 0; row < megabytes; row++) {
            must(db, sqlite3_step(insert), "insert");
            sqlite3_reset(insert);
        }
        sqlite3_finalize(insert);
        run(db, "COMMIT");
        big = now() - began;
    }

    uint32_t *took = malloc(SAMPLES * sizeof *took);
    sqlite3_stmt *commit;
    must(db, sqlite3_prepare_v2(db,
        "INSERT OR REPLACE INTO item VALUES (abs(random()) % 5000, hex(randomblob(4)), randomblob(300))",
        -1, &commit, NULL), "prepare");
    long commits = 0, refused = 0;
    double began = now();
    for (double before = began; before < began + seconds && commits < SAMPLES; before = now()) {
        int code = sqlite3_step(commit);
        sqlite3_reset(commit);
        if (code == SQLITE_BUSY) refused++;
        else must(db, code, "commit");
        took[commits++] = (uint32_t)((now() - before) * 1e6);
        if (rate > 0) pause_until(began + (double)commits / rate);
    }
    double lasted = now() - began;
    stopping = 1;
    for (int reader = 0; reader < readers && reader < 64; reader++) pthread_join(threads[reader], NULL);
    qsort(took, (size_t)commits, sizeof *took, ascending);
#define AT(share) (commits ? took[(long)((double)(commits - 1) * (share))] / 1e3 : 0.0)
    printf("{\"commits\": %ld, \"refused\": %ld, \"per_second\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
           "\"p999_ms\": %.3f, \"worst_ms\": %.3f, \"big_seconds\": %.2f}\n",
           commits, refused, (double)commits / lasted, AT(0.5), AT(0.99), AT(0.999), AT(1.0), big);
    sqlite3_finalize(commit);
    sqlite3_close(db);
    return 0;
}

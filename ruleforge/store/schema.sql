-- The database of one run, version 1 (PRAGMA user_version). SQLite 3.37 or newer (STRICT tables).
-- Released; never edited. Later versions are steps on top of it, schema_2.sql and so on, which make new
-- databases and migrate old ones alike.
--
-- Text and numbers only; nothing is pickled. What was measured is append-only: triggers refuse UPDATE
-- and DELETE. A number that was not finite is NULL (JSON: null), and n_diverged counts it.
-- Wall times live in `timings` alone, so that two runs of one config and seed are equal everywhere else.

PRAGMA application_id = 0x52756c65;  -- "Rule"
PRAGMA user_version = 1;

BEGIN IMMEDIATE;

-- Facts fixed when the run was made: seed, config hash, execution plan, versions, created_at.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL CHECK (json_valid(value))
) STRICT;

-- One row per generation that ended; resume starts from the last one.
CREATE TABLE generations (
    n          INTEGER PRIMARY KEY CHECK (n >= 0),
    population TEXT NOT NULL CHECK (json_valid(population)),  -- candidate ids in the strategy's order
    rng        TEXT NOT NULL CHECK (json_valid(rng)),
    strategy   TEXT NOT NULL CHECK (json_valid(strategy)),
    funnel     TEXT NOT NULL CHECK (json_valid(funnel)),
    best       TEXT NOT NULL CHECK (json_valid(best))
) STRICT;

-- Every proposed rule that was new by its canonical form. Repeats of a form are only counted, in the funnel.
-- `key` ignores hyper defaults, so strategies that move only hypers repeat it; `full_key` never repeats.
CREATE TABLE candidates (
    id          INTEGER PRIMARY KEY,  -- given by the driver in proposal order
    key         TEXT NOT NULL,
    full_key    TEXT NOT NULL UNIQUE,
    text        TEXT NOT NULL,
    genome      TEXT NOT NULL,
    nodes       INTEGER NOT NULL CHECK (nodes >= 0),
    states      INTEGER NOT NULL CHECK (states >= 0),
    generation  INTEGER NOT NULL REFERENCES generations (n) DEFERRABLE INITIALLY DEFERRED,
    origin      TEXT NOT NULL,        -- name of the variation, or 'seed:<rule>'
    status      TEXT NOT NULL CHECK (status IN ('rejected', 'duplicate_behaviour', 'trained')),
    reason      TEXT NOT NULL,        -- why it was rejected, or ''
    fingerprint TEXT NOT NULL,        -- of its behaviour on the probes, or ''
    same_as     INTEGER REFERENCES candidates (id) DEFERRABLE INITIALLY DEFERRED,
    CHECK ((status = 'duplicate_behaviour') = (same_as IS NOT NULL))
) STRICT;
CREATE INDEX candidates_by_key ON candidates (key);
CREATE INDEX candidates_by_fingerprint ON candidates (fingerprint);

-- Lineage: a child is always proposed after its parents.
CREATE TABLE parents (
    child    INTEGER NOT NULL REFERENCES candidates (id) DEFERRABLE INITIALLY DEFERRED,
    position INTEGER NOT NULL CHECK (position >= 0),
    parent   INTEGER NOT NULL REFERENCES candidates (id) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (child, position),
    CHECK (parent < child)
) STRICT;

-- One candidate trained on one workload at one rung, over all its lanes.
CREATE TABLE evaluations (
    candidate     INTEGER NOT NULL REFERENCES candidates (id) DEFERRABLE INITIALLY DEFERRED,
    rung          INTEGER NOT NULL CHECK (rung >= 0),
    workload      TEXT NOT NULL,
    steps         INTEGER NOT NULL CHECK (steps >= 0),       -- optimizer steps of each lane
    n_lanes       INTEGER NOT NULL CHECK (n_lanes >= 0),
    n_diverged    INTEGER NOT NULL CHECK (n_diverged BETWEEN 0 AND n_lanes),
    diverged_at   INTEGER,                                   -- first step, or NULL
    best_lr       REAL,
    best_schedule TEXT,
    final_loss    REAL,
    metric        REAL,
    speedup       TEXT NOT NULL CHECK (json_valid(speedup)), -- {reference: ratio of steps}
    losses        TEXT NOT NULL CHECK (json_valid(losses)),  -- final loss per lane, in lane order
    curve         TEXT NOT NULL CHECK (json_valid(curve)),   -- [[step, loss], …] of the chosen lane
    PRIMARY KEY (candidate, rung, workload)
) STRICT;

-- One objective of one candidate after one rung; config.toml says its direction and unit.
CREATE TABLE fitness (
    candidate INTEGER NOT NULL REFERENCES candidates (id) DEFERRABLE INITIALLY DEFERRED,
    rung      INTEGER NOT NULL CHECK (rung >= 0),
    objective TEXT NOT NULL,
    value     REAL,
    PRIMARY KEY (candidate, rung, objective)
) STRICT;

-- Final tables (champion, baselines, comparison on the validation suite): made from the above, so replaceable.
CREATE TABLE results (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL CHECK (json_valid(value))
) STRICT;

-- Wall time by phase, in seconds. Not part of what must repeat.
CREATE TABLE timings (
    generation INTEGER NOT NULL,
    phase      TEXT NOT NULL,
    wall_s     REAL NOT NULL
) STRICT;

CREATE TRIGGER meta_is_fixed_u BEFORE UPDATE ON meta
    BEGIN SELECT RAISE(ABORT, 'meta is append-only'); END;
CREATE TRIGGER meta_is_fixed_d BEFORE DELETE ON meta
    BEGIN SELECT RAISE(ABORT, 'meta is append-only'); END;
CREATE TRIGGER generations_fixed_u BEFORE UPDATE ON generations
    BEGIN SELECT RAISE(ABORT, 'generations is append-only'); END;
CREATE TRIGGER generations_fixed_d BEFORE DELETE ON generations
    BEGIN SELECT RAISE(ABORT, 'generations is append-only'); END;
CREATE TRIGGER candidates_fixed_u BEFORE UPDATE ON candidates
    BEGIN SELECT RAISE(ABORT, 'candidates is append-only'); END;
CREATE TRIGGER candidates_fixed_d BEFORE DELETE ON candidates
    BEGIN SELECT RAISE(ABORT, 'candidates is append-only'); END;
CREATE TRIGGER parents_fixed_u BEFORE UPDATE ON parents
    BEGIN SELECT RAISE(ABORT, 'parents is append-only'); END;
CREATE TRIGGER parents_fixed_d BEFORE DELETE ON parents
    BEGIN SELECT RAISE(ABORT, 'parents is append-only'); END;
CREATE TRIGGER evaluations_fixed_u BEFORE UPDATE ON evaluations
    BEGIN SELECT RAISE(ABORT, 'evaluations is append-only'); END;
CREATE TRIGGER evaluations_fixed_d BEFORE DELETE ON evaluations
    BEGIN SELECT RAISE(ABORT, 'evaluations is append-only'); END;
CREATE TRIGGER fitness_fixed_u BEFORE UPDATE ON fitness
    BEGIN SELECT RAISE(ABORT, 'fitness is append-only'); END;
CREATE TRIGGER fitness_fixed_d BEFORE DELETE ON fitness
    BEGIN SELECT RAISE(ABORT, 'fitness is append-only'); END;

COMMIT;

-- From version 1 to 2: results within a generation, rules that were set aside, who worked on the run, and
-- copies of its text files. None of it is part of what must repeat: it says how a run went, not what it found.

BEGIN IMMEDIATE;

-- Results of finished jobs of the generation under way, by digest of the job; emptied when it ends.
CREATE TABLE journal (
    job    TEXT PRIMARY KEY,
    result TEXT NOT NULL
) STRICT;

-- Rules that were given up because they killed or hung their worker, or made the task raise.
CREATE TABLE set_aside (
    job       TEXT PRIMARY KEY,
    workload  TEXT NOT NULL,  -- or '' for the probes
    text      TEXT NOT NULL,
    reason    TEXT NOT NULL,
    traceback TEXT NOT NULL
) STRICT;

-- One row each time that a process began to work on the run: from which generation, and on what.
CREATE TABLE sessions (
    n          INTEGER PRIMARY KEY,
    began_at   TEXT NOT NULL,
    generation INTEGER NOT NULL,
    machine    TEXT NOT NULL CHECK (json_valid(machine))
) STRICT;

-- What config.toml and champion.rule must say, so that damaged ones can be told and written anew.
CREATE TABLE files (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL
) STRICT;

CREATE TRIGGER set_aside_fixed_u BEFORE UPDATE ON set_aside
    BEGIN SELECT RAISE(ABORT, 'set_aside is append-only'); END;
CREATE TRIGGER set_aside_fixed_d BEFORE DELETE ON set_aside
    BEGIN SELECT RAISE(ABORT, 'set_aside is append-only'); END;
CREATE TRIGGER sessions_fixed_u BEFORE UPDATE ON sessions
    BEGIN SELECT RAISE(ABORT, 'sessions is append-only'); END;
CREATE TRIGGER sessions_fixed_d BEFORE DELETE ON sessions
    BEGIN SELECT RAISE(ABORT, 'sessions is append-only'); END;

PRAGMA user_version = 2;

COMMIT;

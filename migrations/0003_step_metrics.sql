-- The training series. NULL stands for a value that is not a number.
CREATE TABLE step_metrics (
    step                 INTEGER PRIMARY KEY CHECK (step >= 0),
    loss                 REAL,
    global_loss_estimate REAL,
    acceptance_rate      REAL,
    gradient_norm        REAL,
    spread               REAL,
    learning_rate        REAL,
    images_per_second    REAL,
    at                   TEXT NOT NULL
) STRICT;

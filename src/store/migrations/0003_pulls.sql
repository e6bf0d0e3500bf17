-- What is known of pull requests, and what forges are to be told. Both can be made anew from the forge and the log.
-- Bodies are sealed and bound to their table and row.
CREATE TABLE pulls (
    source TEXT NOT NULL,
    number BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (source, number)
);
-- One row for each thing that a forge shows: the last state wins. `sent` is the `seq` that the forge has taken.
CREATE TABLE outbox (
    source TEXT NOT NULL,
    item TEXT NOT NULL,
    seq BIGINT NOT NULL,
    sent BIGINT NOT NULL,
    remote BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (source, item)
);

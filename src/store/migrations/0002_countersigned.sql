-- The second signature of a checkpoint, by a key of a service: JSON, as the log has it.
ALTER TABLE checkpoints ADD COLUMN countersigned TEXT;

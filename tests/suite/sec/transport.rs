//! Hostile remotes, spoken to by the real daemon.

//! Requests to one CPU, and their acknowledgement.

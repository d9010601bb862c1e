//! Whether a CPU runs, sleeps, switches address spaces, or is gone.

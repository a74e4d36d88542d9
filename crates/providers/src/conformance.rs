//! The harness every provider must pass. Filled in by the providers' own tests.

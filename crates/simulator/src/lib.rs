//! wasel-simulator

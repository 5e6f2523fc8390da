//! vsr

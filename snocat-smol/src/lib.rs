//! snocat-smol

//! snocat-tokio

//! snocat-core/driver

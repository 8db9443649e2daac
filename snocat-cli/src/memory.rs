//! The allocator of the commands: jemalloc, because memory is to be given back when tunnels have gone.
//!
//! glibc's gives back only what is free at the end of its heap: of a thousand tunnels it keeps all, for as long as the process
//! lives. How jemalloc is to behave is compiled into it, from `.cargo/config.toml`. Only where the size of a page is
//! known when it is compiled, which it has to be for jemalloc, and where it was measured: docs/Performance.md, "What was tried".

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

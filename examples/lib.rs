//! What a user copies from: pipeline files in `pipelines/`, guest functions in `functions/`.
//!
//! There is no code here. `functions/` is a workspace of its own, because guests are built for
//! `wasm32-wasip2`: `cargo build --release --target wasm32-wasip2` in that folder. The demo's
//! function is built by the node's own build script.

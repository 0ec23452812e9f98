//! Applies a hotpatch to a base image in-process and watches what changes.
#![deny(unsafe_code)]

mod engine;
mod error;
mod image;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code)]
mod native;
mod running;
mod space;

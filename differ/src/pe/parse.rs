//! Bytes to [`Pe`](super::Pe).

//! Ids: indexes into the flat vectors of one image, typed by what they name and by the image.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use crate::address::Side;

macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident;)*) => {$(
        $(#[$doc])*
        pub struct $id<S> {
            index: u32,
            side: PhantomData<fn() -> S>,
        }

        impl<S> $id<S> {
            /// The id of the element at `index`.
            ///
            /// # Panics
            /// When `index` does not fit 32 bits, which no image of at most 4 GiB can reach.
            pub fn new(index: usize) -> Self {
                let index = u32::try_from(index).expect("an image holds fewer than 2^32 items");
                Self { index, side: PhantomData }
            }

            /// The index of the element.
            pub const fn index(self) -> usize {
                self.index as usize
            }
        }

        impl<S> Clone for $id<S> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<S> Copy for $id<S> {}
        impl<S> PartialEq for $id<S> {
            fn eq(&self, other: &Self) -> bool {
                self.index == other.index
            }
        }
        impl<S> Eq for $id<S> {}
        impl<S> PartialOrd for $id<S> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl<S> Ord for $id<S> {
            fn cmp(&self, other: &Self) -> Ordering {
                self.index.cmp(&other.index)
            }
        }
        impl<S> Hash for $id<S> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.index.hash(state);
            }
        }
        impl<S: Side> fmt::Debug for $id<S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({} {})"), S::NAME, self.index)
            }
        }
    )*};
}

ids! {
    /// A function of one image.
    FunctionId;
    /// A named data symbol of one image.
    DataId;
    /// A compiland: one object file as the PDB lists it.
    CompilandId;
}

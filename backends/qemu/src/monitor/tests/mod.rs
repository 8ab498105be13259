//! The monitor, driven by hand: no QEMU, and a clock that stands still.

mod output;
mod rig;
mod table;

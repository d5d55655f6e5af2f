//! The learn room.

//! Opens a source by its URI.

#![cfg(feature = "sasl")]

//! One table for each of libvirt's public enumerations: number, variant, name.

/// Defines an open enumeration: known numbers have a variant and a name, any other is kept as
/// `Unknown(number)`.
macro_rules! codes {
    (
        $(#[$meta:meta])*
        $name:ident $(, unspecified = $none:literal)? {
            $( $(#[$vmeta:meta])* $code:literal = $variant:ident $text:literal ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            /// The hypervisor gave none.
            #[default]
            Unspecified,
            $( $(#[$vmeta])* $variant, )+
            /// A number that this version of the crate does not know, as the hypervisor sent it.
            Unknown(i32),
        }

        impl $name {
            /// From libvirt's number.
            pub fn from_code(code: i32) -> Self {
                match code {
                    $( $none => Self::Unspecified, )?
                    $( $code => Self::$variant, )+
                    raw => Self::Unknown(raw),
                }
            }

            /// libvirt's number; `None` for [`Unspecified`](Self::Unspecified).
            pub fn code(self) -> Option<i32> {
                match self {
                    Self::Unspecified => None,
                    $( Self::$variant => Some($code), )+
                    Self::Unknown(raw) => Some(raw),
                }
            }

            /// The name in the JSON form: empty for [`Unspecified`](Self::Unspecified), `unknown`
            /// for a number without a name.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::Unspecified => "",
                    $( Self::$variant => $text, )+
                    Self::Unknown(_) => "unknown",
                }
            }

            /// From the name in the JSON form; `None` if no known number has it.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $( $text => Some(Self::$variant), )+
                    _ => None,
                }
            }
        }

        /// The name; the number where it has none; empty for
        /// [`Unspecified`](Self::Unspecified).
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let unknown = if let Self::Unknown(raw) = self { Some(*raw) } else { None };
                $crate::event::json::write_code(serializer, self.as_str(), unknown)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::event::json::read_code(from, Self::from_name, Self::from_code)
            }
        }

        /// The name; `unknown(17)` for a number without one.
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    Self::Unknown(raw) => write!(f, "unknown({raw})"),
                    known => f.write_str(known.as_str()),
                }
            }
        }
    };
}

pub(super) use codes;

//! Parts of URIs that all schemes share.

/// A `%` in a URI is not followed by two hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after a % come two hexadecimal digits; write % itself as %25")]
pub struct BadEscape;

/// The text with each `%XX` as the byte that it stands for.
///
/// # Errors
/// [`BadEscape`].
pub fn percent_decode(text: &str) -> Result<Vec<u8>, BadEscape> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        // Digit by digit: `u8::from_str_radix` accepts a sign, as in "%+f".
        let [high, low, tail @ ..] = tail else { return Err(BadEscape) };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or(BadEscape);
        bytes.push((digit(high)? * 16 + digit(low)?) as u8);
        rest = tail;
    }
    Ok(bytes)
}

/// The URI with `***` in place of a password before its host: what may be shown and logged.
#[must_use]
pub fn mask_password(uri: &str) -> String {
    let Some((head, tail)) = uri.split_once("//") else { return uri.into() };
    let (authority, path) = tail.split_at(tail.find(['/', '?', '#']).unwrap_or(tail.len()));
    // A password may contain colons and unescaped @: the user ends at the first colon, the password
    // at the last @.
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
    {
        Some((user, host)) => format!("{head}//{user}:***@{host}{path}"),
        None => uri.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_the_bytes_that_they_stand_for() {
        assert_eq!(percent_decode("/run/a%20b%3f%FF%c3%A9").unwrap(), b"/run/a b?\xff\xc3\xa9");
        assert_eq!(percent_decode("").unwrap(), b"");
    }

    #[test]
    fn an_escape_has_two_hexadecimal_digits_and_no_sign() {
        for text in ["%", "a%", "a%2", "%zz", "%2z", "%+f", "%-1", "% 1", "%é"] {
            assert_eq!(percent_decode(text), Err(BadEscape), "{text}");
        }
    }

    #[test]
    fn a_password_is_masked_and_nothing_else() {
        let table = [
            ("foo://joe:sesame@host/x", "foo://joe:***@host/x"),
            ("foo://joe:a:b@c@host", "foo://joe:***@host"),
            ("foo://joe:a:b@c@host/x?y=@z", "foo://joe:***@host/x?y=@z"),
            ("foo://joe:s@host:1#x", "foo://joe:***@host:1#x"),
            ("foo://joe@host:1/a@b:c", "foo://joe@host:1/a@b:c"),
            ("foo:///p:q@r", "foo:///p:q@r"),
            ("foo:/run/a:b@c", "foo:/run/a:b@c"),
            ("foo", "foo"),
        ];
        for (uri, shown) in table {
            assert_eq!(mask_password(uri), shown);
        }
    }
}

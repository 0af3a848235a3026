//! What is handed to a statement as `$1`, `$2`, …
//!
//! The types that a statement takes are those that both engines store alike. Times are milliseconds since the Unix
//! epoch, JSON is text.

/// One argument of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// 64 bits with a sign on both engines.
    Int(Option<i64>),
    Text(Option<&'a str>),
    Bytes(Option<&'a [u8]>),
    /// An integer on SQLite, 0 or 1.
    Bool(bool),
    /// For `IN LIST($n)`.
    Texts(&'a [&'a str]),
    /// For `IN LIST($n)`.
    Ints(&'a [i64]),
}

macro_rules! from {
    ($($type:ty, $value:ident => $into:expr;)*) => {$(
        impl<'a> From<$type> for Value<'a> {
            fn from($value: $type) -> Self {
                $into
            }
        }
    )*};
}

from! {
    i64, v => Self::Int(Some(v));
    &i64, v => Self::Int(Some(*v));
    Option<i64>, v => Self::Int(v);
    &'a str, v => Self::Text(Some(v));
    &'a String, v => Self::Text(Some(v));
    Option<&'a str>, v => Self::Text(v);
    &'a Option<String>, v => Self::Text(v.as_deref());
    &'a [u8], v => Self::Bytes(Some(v));
    &'a Vec<u8>, v => Self::Bytes(Some(v));
    bool, v => Self::Bool(v);
    &'a [&'a str], v => Self::Texts(v);
    &'a Vec<&'a str>, v => Self::Texts(v);
    &'a [i64], v => Self::Ints(v);
    &'a Vec<i64>, v => Self::Ints(v);
    &'a ruma::UserId, v => Self::Text(Some(v.as_str()));
    &'a ruma::OwnedUserId, v => Self::Text(Some(v.as_str()));
    &'a ruma::DeviceId, v => Self::Text(Some(v.as_str()));
    &'a ruma::OwnedDeviceId, v => Self::Text(Some(v.as_str()));
    &'a ruma::RoomId, v => Self::Text(Some(v.as_str()));
    &'a ruma::OwnedRoomId, v => Self::Text(Some(v.as_str()));
    &'a ruma::EventId, v => Self::Text(Some(v.as_str()));
    &'a ruma::OwnedEventId, v => Self::Text(Some(v.as_str()));
    &'a ruma::RoomAliasId, v => Self::Text(Some(v.as_str()));
}

/// `args![a, b, c]`: the arguments of a statement, in the order of `$1`, `$2`, `$3`.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::db::Value::from($value)),*] };
}
pub(crate) use args;

//! Requests of our own, where ruma's type has no room for what clients send: ruma says where they go, and what they say
//! is read here.

use ruma::api::error::DeserializationError;
use serde::{
    Deserialize as _, Deserializer,
    de::{
        DeserializeOwned, Error as _,
        value::{Error as PathError, SeqDeserializer},
    },
};

/// Has a request of our own go where ruma's goes: `metadata_of!(SetTyping: create_typing_event::Request)`, or
/// `metadata_of!(for R: Written<R>)` for one around any other.
macro_rules! metadata_of {
    (for $inner:ident: $own:ty) => {
        $crate::api::own::metadata_of! { @impl [<$inner: ruma::api::Metadata>] $own, $inner }
    };
    ($own:ident: $ruma:ty) => {
        $crate::api::own::metadata_of! { @impl [] $own, $ruma }
    };
    (@impl [$($generics:tt)*] $own:ty, $ruma:ty) => {
        impl $($generics)* ruma::api::Metadata for $own {
            type Authentication = <$ruma as ruma::api::Metadata>::Authentication;
            type PathBuilder = <$ruma as ruma::api::Metadata>::PathBuilder;

            const METHOD: http::Method = <$ruma as ruma::api::Metadata>::METHOD;
            const RATE_LIMITED: bool = <$ruma as ruma::api::Metadata>::RATE_LIMITED;
            const PATH_BUILDER: Self::PathBuilder = <$ruma as ruma::api::Metadata>::PATH_BUILDER;
        }
    };
}
pub(crate) use metadata_of;

/// A token that clients send. An empty one is none: clients write what they have, and at first they have nothing.
pub(crate) fn given(token: Option<&str>) -> Option<&str> {
    token.filter(|token| !token.is_empty())
}

/// The parameters of a path, in its order.
pub(crate) fn read_path<T: DeserializeOwned>(path: &[&str]) -> Result<T, DeserializationError> {
    Ok(T::deserialize(SeqDeserializer::<_, PathError>::new(path.iter().copied()))?)
}

/// The parameters of a query.
pub(crate) fn read_query<T: DeserializeOwned>(request: &http::Request<&[u8]>) -> Result<T, DeserializationError> {
    Ok(serde_html_form::from_str(request.uri().query().unwrap_or_default())?)
}

/// A parameter of a query that is JSON.
pub(crate) fn json_text<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| serde_json::from_str(&text).map_err(D::Error::custom)).transpose()
}

//! Requests of our own, where ruma's type does not have what clients send: ruma says where they go, and what they say
//! is read here.
//!
//! A request of our own has the policy of ruma's that it stands for, and a request that ruma does not have needs a line
//! in `policy.rs`: there is no way to route one without.

use axum::body::Bytes;
use http::request::Parts;
use ruma::api::{IncomingRequest, error::DeserializationError};
use serde::{
    Deserialize as _, Deserializer,
    de::{
        DeserializeOwned, Error as _,
        value::{Error as PathError, SeqDeserializer},
    },
};

use super::{
    body::{BodyStream, WholeBody},
    endpoint::{Endpoint, Policy, Proves, RawAnswer},
    error::ApiResult,
};

/// Has a request of our own go where ruma's goes, by the same policy:
/// `metadata_of!(SetTyping: create_typing_event::Request)`, or `metadata_of!(for R: Written<R>)` for one around any
/// other.
macro_rules! metadata_of {
    (for $inner:ident $(, $extra:ident)?: $own:ty) => {
        $crate::api::own::metadata_of! {
            @impl [<$inner: ruma::api::Metadata $(, $extra)?>] [<$inner: $crate::api::endpoint::Policy $(, $extra)?>]
            $own, $inner
        }
    };
    ($own:ident: $ruma:ty) => {
        $crate::api::own::metadata_of! { @impl [] [] $own, $ruma }
    };
    // Where it lies and who may call it come from one request: a request of our own can't have the one without the
    // other.
    (@impl [$($generics:tt)*] [$($policy_generics:tt)*] $own:ty, $ruma:ty) => {
        impl $($generics)* ruma::api::Metadata for $own {
            type Authentication = <$ruma as ruma::api::Metadata>::Authentication;
            type PathBuilder = <$ruma as ruma::api::Metadata>::PathBuilder;

            const METHOD: http::Method = <$ruma as ruma::api::Metadata>::METHOD;
            const RATE_LIMITED: bool = <$ruma as ruma::api::Metadata>::RATE_LIMITED;
            const PATH_BUILDER: Self::PathBuilder = <$ruma as ruma::api::Metadata>::PATH_BUILDER;
        }

        impl $($policy_generics)* $crate::api::endpoint::Policy for $own {
            type Who = <$ruma as $crate::api::endpoint::Policy>::Who;

            fn rules() -> $crate::api::endpoint::Rules {
                <$ruma as $crate::api::endpoint::Policy>::rules()
            }
        }
    };
}
pub(crate) use metadata_of;

/// A request that ruma has none for:
/// `own_request!(Name { fields }: METHOD Scheme path "/…" -> Answer, |request, path| …)`, where the closure reads it.
/// Paths that have changed stand in `history { 1.0 => "/…", 1.1 => "/…" }` instead, and a constant behind `at`.
macro_rules! own_request {
    ($(#[$attribute:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty),* $(,)? }:
     $method:ident $scheme:ident $where:ident $place:tt -> $answer:ty, |$request:ident, $args:ident| $read:expr) => {
        $(#[$attribute])*
        pub(crate) struct $name {
            $($(#[$of_field])* $field: $type,)*
        }

        $crate::api::own::own_request! { @metadata $name $method $scheme $where $place }

        impl ruma::api::IncomingRequest for $name {
            type EndpointError = ruma::api::error::Error;
            type OutgoingResponse = $answer;

            fn try_from_http_request_inner(
                $request: http::Request<&[u8]>,
                $args: &[&str],
            ) -> Result<Self, ruma::api::error::DeserializationError> {
                $read
            }
        }
    };
    // A path that is a constant of another module, which ruma's macro does not take.
    (@metadata $name:ident $method:ident $scheme:ident at $place:tt) => {
        impl ruma::api::Metadata for $name {
            type Authentication = $scheme;
            type PathBuilder = ruma::api::path_builder::SinglePath;

            const METHOD: http::Method = http::Method::$method;
            const RATE_LIMITED: bool = false;
            const PATH_BUILDER: Self::PathBuilder = ruma::api::path_builder::SinglePath::new($place);
        }
    };
    // `$where` is `path` or `history`, the words of ruma's own macro.
    (@metadata $name:ident $method:ident $scheme:ident $where:ident $place:tt) => {
        ruma::api::metadata! {
            @for $name, method: $method, rate_limited: false, authentication: $scheme, $where: $place
        }
    };
}
pub(crate) use own_request;

/// Endpoint `R` with something beside it that ruma leaves out of its request.
///
/// `extra` is read from the whole request, body included, because ruma's request keeps nothing of what it does not
/// know.
pub(crate) struct WithExtra<R, X> {
    pub(crate) request: R,
    pub(crate) extra: X,
}

/// What is read of a request beside what ruma reads, and before that.
///
/// Its errors get their codes as ruma's do (`read.rs`).
pub(crate) trait Extra: Sized {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError>;
}

metadata_of!(for R, X: WithExtra<R, X>);

impl<R: IncomingRequest, X: Extra> IncomingRequest for WithExtra<R, X> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        // First, so that what both would refuse is refused in our words.
        let extra = X::read(&request)?;
        Ok(Self { request: R::try_from_http_request_inner(request, path)?, extra })
    }
}

/// Endpoint `R` with its body handed over as it comes. `R` is read of a request without a body.
///
/// For handlers that read a form, or JSON with errors of their own.
pub(crate) struct Upload<R> {
    pub(crate) request: R,
    pub(crate) body: BodyStream,
}

metadata_of!(for R: Upload<R>);

impl<R: Endpoint<Body = WholeBody>> Endpoint for Upload<R>
where
    BodyStream: Proves<R::Who>,
{
    type Body = BodyStream;
    type Answer = R::Answer;

    fn read(parts: &Parts, path: &[&str], body: BodyStream) -> ApiResult<Self> {
        Ok(Self { request: R::read(parts, path, WholeBody(Bytes::new()))?, body })
    }
}

/// Endpoint `R` with an answer that its handler writes, whose body may be a stream.
///
/// `R` is read as ever and keeps its policy. Only its response is left out.
pub(crate) struct Download<R>(pub(crate) R);

metadata_of!(for R: Download<R>);

impl<R: IncomingRequest + Policy + Send + 'static> Endpoint for Download<R> {
    type Body = WholeBody;
    type Answer = RawAnswer;

    fn read(parts: &Parts, path: &[&str], body: WholeBody) -> ApiResult<Self> {
        R::read(parts, path, body).map(Self)
    }
}

/// A token that clients send. An empty one is none: clients write what they have, and at first they have nothing.
pub(crate) fn given(token: Option<&str>) -> Option<&str> {
    token.filter(|token| !token.is_empty())
}

/// The parameters of a path, in its order.
///
/// `T` is a tuple with a value for each `{…}` of it. `M_INVALID_PARAM` where one does not parse.
pub(crate) fn read_path<T: DeserializeOwned>(path: &[&str]) -> Result<T, DeserializationError> {
    Ok(T::deserialize(SeqDeserializer::<_, PathError>::new(path.iter().copied()))?)
}

/// The parameters of a query.
///
/// A list is a name that is given again and again. What `T` does not name is ignored.
pub(crate) fn read_query<T: DeserializeOwned>(request: &http::Request<&[u8]>) -> Result<T, DeserializationError> {
    Ok(serde_html_form::from_str(request.uri().query().unwrap_or_default())?)
}

/// A parameter of a query that is JSON.
///
/// `M_INVALID_PARAM` where it is something else.
pub(crate) fn json_text<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| serde_json::from_str(&text).map_err(D::Error::custom)).transpose()
}

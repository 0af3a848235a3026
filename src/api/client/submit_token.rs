//! The link in a mail that proves an address, and where clients send its token.
//!
//! Following the link changes nothing: mail servers follow it too, to see whether it does harm. It shows a page with a
//! button, and the button does it. Clients send the same as JSON.
//!
//! <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2validateemailsubmittoken>

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use reqwest::Url;
use ruma::api::error::ErrorKind;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{
        body::collect,
        error::{ApiError, ApiResult},
        json::{read, reply},
    },
    app::App,
    error::{Error, Result},
    threepid::{Operation, Pending, SUBMIT_PATH},
};

const BODY_LIMIT: usize = 16 * 1024;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.route(SUBMIT_PATH, get(page).post(submit))
}

/// What the link carries, and the client sends.
#[derive(Deserialize)]
struct Submission {
    sid: String,
    client_secret: String,
    token: String,
}

/// The page behind the link.
async fn page(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    show(&app, query.as_deref().unwrap_or_default()).await.unwrap_or_else(failed)
}

async fn show(app: &App, query: &str) -> ApiResult<Response> {
    let submission = Submission::of_form(query)?;
    let pending = app.threepids.find_pending(&submission.sid, &submission.client_secret).await?;
    Ok(html(StatusCode::OK, "Confirm your address", &form(&pending, &submission)))
}

async fn submit(State(app): State<App>, request: http::Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        return submit_form(&app, body).await.unwrap_or_else(failed);
    }
    reply(submit_json(&app, body).await)
}

/// By the button: the answer is for people.
async fn submit_form(app: &App, body: Body) -> ApiResult<Response> {
    let body = collect(body, BODY_LIMIT).await?;
    let Submission { sid, client_secret, token } = Submission::of_form(&String::from_utf8_lossy(&body))?;
    let next_link = app.threepids.submit_token(&sid, &client_secret, &token).await?;
    if let Some(next_link) = next_link {
        let location = HeaderValue::from_str(&next_link).map_err(Error::broken)?;
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response());
    }
    let text = "<p>Your address is confirmed. Go back to your app, it goes on there.</p>";
    Ok(html(StatusCode::OK, "That was it", text))
}

/// By a client.
async fn submit_json(app: &App, body: Body) -> ApiResult<Value> {
    let Submission { sid, client_secret, token } = read(&collect(body, BODY_LIMIT).await?)?;
    app.threepids.submit_token(&sid, &client_secret, &token).await?;
    Ok(json!({ "success": true }))
}

impl Submission {
    /// Reads a form, which is written as a query is.
    fn of_form(encoded: &str) -> Result<Self> {
        let mut url = Url::parse("form:").map_err(Error::broken)?;
        url.set_query(Some(encoded));
        let field = |name: &str| {
            let value = url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
            value.ok_or_else(|| {
                let message = "This link is not complete: copy all of it out of the mail";
                Error::refused(ErrorKind::MissingParam, message)
            })
        };
        Ok(Self { sid: field("sid")?, client_secret: field("client_secret")?, token: field("token")? })
    }
}

fn form(pending: &Pending, submission: &Submission) -> String {
    let address = escape(&pending.address);
    let (what, button) = match pending.operation {
        Operation::Register => (format!("You are making an account with the address {address}."), "Confirm"),
        Operation::AddThreepid => (format!("You are adding the address {address} to your account."), "Confirm"),
        Operation::ResetPassword => (
            format!(
                "Somebody wants a new password for the account with the address {address}, and gets into it if you go \
                 on. Only go on if you have just asked for it yourself."
            ),
            "Let me set a new password",
        ),
    };
    let Submission { sid, client_secret, token } = submission;
    let field = |name: &str, value: &str| format!("<input type=hidden name={name} value=\"{}\">", escape(value));
    let fields = field("sid", sid) + &field("client_secret", client_secret) + &field("token", token);
    format!("<p>{what}</p><form method=post action=submitToken>{fields}<button>{button}</button></form>")
}

/// What people read where a client reads an error code.
fn failed(error: ApiError) -> Response {
    match error {
        ApiError::Domain(Error::Refused { message, .. }) => {
            html(StatusCode::BAD_REQUEST, "That did not work", &format!("<p>{}</p>", escape(&message)))
        }
        error => error.into_response(),
    }
}

/// A page that loads nothing, runs nothing, is shown in no other page and passes its address on to nobody.
fn html(status: StatusCode, title: &str, body: &str) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    const STYLE: &str =
        "body{font:18px/1.5 sans-serif;max-width:32em;margin:4em auto;padding:0 1em}button{font:inherit}";
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>{body}</html>\n"
    );
    (status, HEADERS, page).into_response()
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_carries_stays_text_in_the_page() {
        let pending = Pending { operation: Operation::Register, address: "o'hara&co@example.org".to_owned() };
        let query = "sid=a&client_secret=b%22+onload%3D&token=%3Cscript%3E";
        let page = form(&pending, &Submission::of_form(query).unwrap());
        assert!(page.contains("o&#39;hara&amp;co@example.org"), "{page}");
        assert!(page.contains("value=\"b&quot; onload=\"") && page.contains("value=\"&lt;script&gt;\""), "{page}");
        for incomplete in ["", "sid=a", "sid=a&client_secret=b", "%"] {
            assert!(Submission::of_form(incomplete).is_err(), "{incomplete}");
        }
    }
}

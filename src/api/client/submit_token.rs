//! The link in a mail that proves an address, and where clients send its token.
//!
//! Following the link changes nothing: mail servers follow it too, to see whether it does harm. It shows a page with a
//! button, and the button does it. Clients send the same as JSON.
//!
//! The page has to work in any browser and without scripts. Everything in it that came from outside is escaped, and its
//! address is passed on to nobody, because the token is in it.
//!
//! <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2validateemailsubmittoken>

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use reqwest::Url;
use ruma::api::{auth_scheme::NoAuthentication, error::ErrorKind};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{
        body::BodyStream,
        endpoint::{Answer as _, RawAnswer},
        error::{ApiError, ApiResult},
        extract::Call,
        json::{Json, read},
        own::{Download, Upload, own_request},
        page::{escape, html, html_with_form},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::threepid::{Operation, PendingValidation, SUBMIT_PATH},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Download<Confirm>, _, _>(page).endpoint::<Upload<Download<Submit>>, _, _>(submit)
}

own_request!(
    /// The link in a mail was followed.
    Confirm { query: String }: GET NoAuthentication at SUBMIT_PATH -> Json,
    |request, _path| Ok(Self { query: request.uri().query().unwrap_or_default().to_owned() })
);

own_request!(
    /// The button on the page was pressed, or a client sends the token itself. The body may be either's.
    Submit { is_form: bool }: POST NoAuthentication at SUBMIT_PATH -> Json,
    |request, _path| {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Ok(Self { is_form: content_type.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) })
    }
);

/// What the link carries, and the client sends.
#[derive(Deserialize)]
struct Submission {
    sid: String,
    client_secret: String,
    token: String,
}

/// The page behind the link.
async fn page(app: App, call: Call<Download<Confirm>>) -> ApiResult<RawAnswer> {
    Ok(show(&app, &call.request.0.query).await.unwrap_or_else(failed).into())
}

/// The page, or why there is none: a link that has expired, was used for something else, or is not complete.
async fn show(app: &App, query: &str) -> ApiResult<Response> {
    let submission = Submission::of_form(query)?;
    let pending = app.threepids.find_pending(&submission.sid, &submission.client_secret).await?;
    let onward = pending.next_link.as_deref().and_then(|link| Url::parse(link).ok());
    let onward = onward.map(|link| link.origin().ascii_serialization());
    Ok(html_with_form("Confirm your address", &form(&pending, &submission), onward.as_deref()))
}

async fn submit(app: App, call: Call<Upload<Download<Submit>>>) -> ApiResult<RawAnswer> {
    // How the body is read follows from its type, so it is not read before that is known.
    let Upload { request: Download(request), body } = call.request;
    if request.is_form {
        return Ok(submit_form(&app, body).await.unwrap_or_else(failed).into());
    }
    Ok(RawAnswer(submit_json(&app, body).await?.write()?))
}

/// By the button: the answer is for people.
///
/// Where the client has named a page to go on at, the browser is sent there.
async fn submit_form(app: &App, body: BodyStream) -> ApiResult<Response> {
    let body = body.collect().await?;
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
async fn submit_json(app: &App, body: BodyStream) -> ApiResult<Json> {
    let Submission { sid, client_secret, token } = read(&body.collect().await?)?;
    app.threepids.submit_token(&sid, &client_secret, &token).await?;
    Ok(Json::from(json!({ "success": true })))
}

impl Submission {
    /// Reads a form, which is written as a query is.
    fn of_form(encoded: &str) -> Result<Self> {
        // A URL that is there for its query alone, which it decodes.
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

/// The page's form, which sends on what the link said. It leads to the page's own path, on whatever host that is shown.
fn form(pending: &PendingValidation, submission: &Submission) -> String {
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
        // What broke is answered as everywhere, and logged.
        error => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_carries_stays_text_in_the_page() {
        let address = "o'hara&co@example.org".to_owned();
        let pending = PendingValidation { operation: Operation::Register, address, next_link: None };
        let query = "sid=a&client_secret=b%22+onload%3D&token=%3Cscript%3E";
        let page = form(&pending, &Submission::of_form(query).unwrap());
        assert!(page.contains("o&#39;hara&amp;co@example.org"), "{page}");
        assert!(page.contains("value=\"b&quot; onload=\"") && page.contains("value=\"&lt;script&gt;\""), "{page}");
        for incomplete in ["", "sid=a", "sid=a&client_secret=b", "%"] {
            assert!(Submission::of_form(incomplete).is_err(), "{incomplete}");
        }
    }
}

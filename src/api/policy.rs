//! Every endpoint, sorted by who may call it, and the rules for it: to which accounts it is open, on which node it is
//! served, how long its body may be and how often it may be called. An endpoint that does not stand here does not
//! compile.
//!
//! Whoever adds one decides. Open to suspended accounts is what only reads (every GET), what others don't see, what
//! ends something, and what keeps a device and its keys in order; to locked ones, logging out. Open to guests is what
//! the specification lists for them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>,
//! <https://spec.matrix.org/v1.19/client-server-api/#account-locking> and
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use ruma::api::{
    Metadata,
    client::{
        account, admin, alias, appservice as appservices, backup, config, context, delayed_events, device, directory,
        discovery, filter as filters, knock, membership, message, peeking, presence, profile, push, read_marker,
        receipt, redact, relations, reporting, room, rtc, search, session, space, state, sync, tag, thirdparty,
        threads, typing, user_directory, voip,
    },
};

use super::{
    auth::{Administrators, AnonymousOr, Anybody, Appservices, Users, UsersAndGuests},
    client::{account_data, event_stream, initial_sync, server_notice, shared_secret, submit_token, threepid},
    endpoint::{Forwarding, Policy, Rules},
    federation, front_page, health,
};
use crate::people::rate_limit::Limit;

/// In bytes.
const KIB: usize = 1024;

/// Gives requests their policies. An endpoint without further rules has those of [`Rules::of`].
///
/// A request stands under one kind of caller alone: twice would be two implementations of one trait.
macro_rules! policies {
    ($($who:ty { $($request:ty $(=> $($rule:ident $(($argument:expr))?),+)?;)+ })+) => { $($(
        impl Policy for $request {
            type Who = $who;

            fn rules() -> Rules {
                Rules::of(&<$request as Metadata>::METHOD)$($(.$rule($($argument)?))+)?
            }
        }
    )+)+ };
}

// What is not said is as in `Rules::of`: closed to suspended accounts unless it is a GET, served where it arrives, a
// body of 256 KiB, no rate limit.
policies! {
    Anybody {
        // For whom these count depends on a stage, or on the address that a body names.
        account::check_registration_token_validity::v1::Request => counted_by_handler;
        account::get_username_availability::v3::Request => counted_by_handler;
        account::register::v3::Request => counted_by_handler;
        account::request_3pid_management_token_via_email::v3::Request => counted_by_handler;
        account::request_3pid_management_token_via_msisdn::v3::Request;
        account::request_password_change_token_via_email::v3::Request => counted_by_handler;
        account::request_password_change_token_via_msisdn::v3::Request;
        account::request_registration_token_via_email::v3::Request => counted_by_handler;
        account::request_registration_token_via_msisdn::v3::Request;
        alias::get_alias::v3::Request;
        directory::get_public_rooms::v3::Request;
        directory::get_room_visibility::v3::Request;
        discovery::discover_homeserver::Request;
        discovery::discover_policy_server::Request;
        discovery::discover_support::Request;
        profile::get_profile::v3::Request;
        profile::get_profile_field::v3::Request;
        session::get_login_types::v3::Request;
        // The name counts too, but it is in the body: the handler sees to that.
        session::login::v3::Request => per_address(Limit::Login);
        session::refresh_token::v3::Request;
        // These are no calls of a client's, or prove in the body who sends them.
        federation::OpenIdUserInfo => always;
        front_page::FrontPage => always;
        health::Alive => always;
        health::Ready => always;
        shared_secret::CreateNonce;
        shared_secret::Register => body(16 * KIB);
        submit_token::Confirm;
        submit_token::Submit => body(16 * KIB);
    }

    AnonymousOr<UsersAndGuests> {
        discovery::get_supported_versions::Request;
        room::get_summary::v1::Request;
    }

    AnonymousOr<Users> {
        // Without a token it is a reset by e-mail; with one, the old password is shown.
        account::change_password::v3::Request => suspended, counted_by_handler;
        // The service that watches over a call has no token.
        delayed_events::update_delayed_event::unstable_v2::Request => counted_by_handler;
    }

    UsersAndGuests {
        account::whoami::v3::Request;
        context::get_context::v3::Request;
        device::get_device::v3::Request;
        device::get_devices::v3::Request;
        device::update_device::v3::Request;
        membership::get_member_events::v3::Request;
        // Suspended accounts may join the room in which the server speaks to them: `suspension.rs` sees to that.
        membership::join_room_by_id::v3::Request => suspended, per_account(Limit::Join);
        // Not in the specification's list, but it is the way that clients join by.
        membership::join_room_by_id_or_alias::v3::Request => suspended, per_account(Limit::Join);
        membership::leave_room::v3::Request => suspended;
        message::get_message_events::v3::Request;
        // Suspended accounts may send redactions of what they said themselves: `suspension.rs` sees to that.
        message::send_message_event::v3::Request
            => suspended, per_account(Limit::Message), forwarded(Forwarding::ToRoomUnlessDelayed);
        // Guests look at one room with it.
        peeking::listen_to_new_events::v3::Request;
        peeking::get_current_state::v3::Request;
        // Guests set their display name. A whole profile may have 64 KiB; what surrounds it may be as long again.
        profile::set_profile_field::v3::Request => body(128 * KIB);
        room::get_room_event::v3::Request;
        state::get_state_event_for_key::v3::Request;
        state::get_state_events::v3::Request;
        // Closed to suspended accounts: state is what the room is to everybody in it.
        state::send_state_event::v3::Request
            => per_account(Limit::Message);
        // While it waits for news it needs no look at the end of the log: see `auth.rs`.
        sync::sync_events::v3::Request => waits;
    }

    Users {
        account::add_3pid::v3::Request;
        account::bind_3pid::v3::Request => per_account(Limit::Message);
        // Suspended accounts can end themselves.
        account::deactivate::v3::Request => suspended;
        account::delete_3pid::v3::Request => per_account(Limit::Message);
        account::get_3pids::v3::Request;
        account::request_openid_token::v3::Request => per_account(Limit::Message);
        account::unbind_3pid::v3::Request => per_account(Limit::Message);
        // Account data is seen by its owner alone.
        account_data::DeleteGlobal => suspended;
        account_data::DeleteOfRoom => suspended;
        admin::get_user_info::v3::Request;
        alias::create_alias::v3::Request;
        alias::delete_alias::v3::Request;
        backup::get_backup_info::v3::Request;
        backup::get_latest_backup_info::v3::Request;
        config::get_global_account_data::v3::Request;
        config::get_room_account_data::v3::Request;
        config::set_global_account_data::v3::Request => suspended;
        config::set_room_account_data::v3::Request => suspended;
        delayed_events::get_all_delayed_events::unstable::Request;
        delayed_events::get_delayed_event::unstable::Request;
        // Scheduling counts as sending does.
        delayed_events::send_delayed_event::unstable::Request => per_account(Limit::Message);
        delayed_events::update_delayed_event::unstable_v1::Request => per_account(Limit::Message);
        // A lost device must be locked out, whatever else its owner may do.
        device::delete_device::v3::Request => suspended;
        device::delete_devices::v3::Request => suspended;
        // A POST, but it only reads.
        directory::get_public_rooms_filtered::v3::Request => suspended;
        directory::set_room_visibility::v3::Request;
        discovery::get_capabilities::v3::Request;
        event_stream::FindEvent;
        filters::create_filter::v3::Request => suspended, body(64 * KIB);
        filters::get_filter::v3::Request;
        initial_sync::InitialSync;
        knock::knock_room::v3::Request => per_account(Limit::Message);
        membership::ban_user::v3::Request;
        membership::forget_room::v3::Request => suspended;
        membership::get_mutual_rooms::v1::Request;
        membership::invite_user::v3::Request => per_account(Limit::Message);
        membership::joined_members::v3::Request;
        membership::joined_rooms::v3::Request;
        membership::kick_user::v3::Request;
        membership::unban_user::v3::Request;
        presence::get_presence::v3::Request;
        presence::set_presence::v3::Request;
        profile::delete_profile_field::v3::Request;
        push::get_pushers::v3::Request;
        push::get_pushrule::v3::Request;
        push::get_pushrule_actions::v3::Request;
        push::get_pushrule_enabled::v3::Request;
        push::get_pushrules_all::v3::Request;
        push::get_pushrules_global_scope::v3::Request;
        read_marker::set_read_marker::v3::Request => suspended;
        receipt::create_receipt::v3::Request => suspended;
        redact::redact_event::v3::Request
            => suspended, per_account(Limit::Message), forwarded(Forwarding::ToRoom);
        relations::get_relating_events::v1::Request;
        relations::get_relating_events_with_rel_type::v1::Request;
        relations::get_relating_events_with_rel_type_and_event_type::v1::Request;
        // Reports are for the operator, to whom suspended users may turn.
        reporting::report_user::v3::Request => suspended, per_account(Limit::Message);
        room::aliases::v3::Request;
        room::create_room::v3::Request => per_account(Limit::Message);
        room::get_event_by_timestamp::v1::Request;
        room::report_content::v3::Request => suspended, per_account(Limit::Message);
        room::report_room::v3::Request => suspended, per_account(Limit::Message);
        room::upgrade_room::v3::Request;
        rtc::transports::v1::Request;
        search::search_events::v3::Request => suspended, per_account(Limit::Message);
        session::get_login_token::v1::Request => suspended;
        // A locked client can end its session, and nothing else.
        session::logout::v3::Request => locked;
        session::logout_all::v3::Request => locked;
        space::get_hierarchy::v1::Request;
        tag::create_tag::v3::Request => suspended;
        tag::delete_tag::v3::Request => suspended;
        tag::get_tags::v3::Request;
        thirdparty::get_location_for_protocol::v3::Request;
        thirdparty::get_location_for_room_alias::v3::Request;
        thirdparty::get_protocol::v3::Request;
        thirdparty::get_protocols::v3::Request;
        thirdparty::get_user_for_protocol::v3::Request;
        thirdparty::get_user_for_user_id::v3::Request;
        threads::get_threads::v1::Request;
        threepid::AddContact => per_account(Limit::Message);
        typing::create_typing_event::v3::Request;
        // A POST, but it only reads.
        user_directory::search_users::v3::Request => suspended, per_account(Limit::Message);
        voip::get_turn_server_info::v3::Request;
    }

    Administrators {
        admin::is_user_locked::v1::Request;
        admin::is_user_suspended::v1::Request;
        admin::lock_user::v1::Request;
        admin::suspend_user::v1::Request;
        server_notice::Post;
        server_notice::Put;
    }

    Appservices {
        // Nobody can call these as yet: see `auth.rs`.
        appservices::request_ping::v1::Request;
        appservices::set_room_visibility::v3::Request;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;

    use crate::api::{
        endpoint::{Availability, Forwarding, OpenTo, RateLimit},
        endpoints,
        route::ListedEndpoint,
    };

    fn is_open_to_guests(endpoint: &ListedEndpoint) -> bool {
        endpoint.who.trim_end_matches('>') == "UsersAndGuests"
    }

    /// Whoever reads a token that ruma knows of no need for, or none where ruma knows of one, has a reason.
    #[test]
    fn endpoints_ask_for_the_tokens_that_the_specification_has_them_ask_for() {
        let (endpoints, mut others) = (endpoints(), Vec::new());
        for endpoint in endpoints.list() {
            let expected = match endpoint.scheme {
                "NoAuthentication" | "NoAccessToken" | "AppserviceTokenOptional" => &["Anybody"][..],
                "AccessToken" => &["Users", "UsersAndGuests", "Administrators"],
                "AccessTokenOptional" => &["Users>", "UsersAndGuests>"],
                "AppserviceToken" => &["Appservices"],
                scheme => panic!("{scheme} is new: who is that?"),
            };
            if !expected.contains(&endpoint.who) {
                others.extend(endpoint.names().first().cloned());
            }
        }
        others.sort();
        let reasons = [
            // A password is no proof of who calls: it is asked for of whoever is logged in.
            "POST /account/deactivate",
            // The service that watches over a call has no token.
            "POST /org.matrix.msc4140/delayed_events/{delay_id}/{action}",
        ];
        assert_eq!(others, reasons);
    }

    #[test]
    fn of_all_endpoints_exactly_those_of_the_section_are_open_to_guests() {
        let listed = [
            "GET /rooms/{room_id}/state",
            "GET /rooms/{room_id}/context/{event_id}",
            "GET /rooms/{room_id}/event/{event_id}",
            "GET /rooms/{room_id}/state/{event_type}/{state_key}",
            "GET /rooms/{room_id}/messages",
            "GET /rooms/{room_id}/members",
            "GET /rooms/{room_id}/initialSync",
            "GET /sync",
            "GET /events",
            "POST /rooms/{room_id}/join",
            "POST /join/{room_id_or_alias}",
            "POST /rooms/{room_id}/leave",
            "PUT /rooms/{room_id}/send/{event_type}/{txn_id}",
            "PUT /rooms/{room_id}/state/{event_type}/{state_key}",
            "PUT /profile/{user_id}/{field}",
            "GET /devices",
            "GET /devices/{device_id}",
            "PUT /devices/{device_id}",
            "GET /account/whoami",
            "GET /room_summary/{room_id_or_alias}",
            "GET /_matrix/client/versions",
        ];
        let endpoints = endpoints();
        let open: Vec<&ListedEndpoint> =
            endpoints.list().iter().filter(|endpoint| is_open_to_guests(endpoint)).collect();
        for endpoint in &open {
            let names = endpoint.names();
            assert!(names.iter().any(|name| listed.contains(&name.as_str())), "{names:?} is open to guests");
        }
        let open: BTreeSet<String> = open.iter().flat_map(|endpoint| endpoint.names()).collect();
        let closed: Vec<_> = listed.iter().filter(|name| !open.contains(**name)).collect();
        assert!(closed.is_empty(), "{closed:?}");
    }

    /// What goes to another node may happen twice, and its path says in which room and in which transaction.
    #[test]
    fn only_what_names_its_transaction_is_forwarded() {
        let endpoints = endpoints();
        let forwarded = endpoints.list().iter().filter(|endpoint| endpoint.rules.forwarding != Forwarding::Here);
        let mut names: Vec<_> = forwarded.filter_map(|endpoint| endpoint.names().pop()).collect();
        names.sort();
        let expected =
            ["PUT /rooms/{room_id}/redact/{event_id}/{txn_id}", "PUT /rooms/{room_id}/send/{event_type}/{txn_id}"];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_rules_of_an_endpoint_fit_each_other() {
        let endpoints = endpoints();
        assert!(endpoints.list().len() > 120, "only {} endpoints", endpoints.list().len());
        let mut routed = BTreeSet::new();
        for endpoint in endpoints.list() {
            let names = endpoint.names();
            for path in &endpoint.paths {
                assert!(routed.insert((endpoint.method.to_string(), path.clone())), "{names:?} is routed twice");
            }
            let knows_account = !["Anybody", "Appservices"].contains(&endpoint.who);
            if let RateLimit::PerAccount(_) = endpoint.rules.rate_limit {
                assert!(knows_account, "{names:?} can't count for an account");
            }
            if endpoint.method == Method::GET {
                assert_ne!(endpoint.rules.open_to, OpenTo::Unrestricted, "{names:?} only reads");
            }
            if endpoint.rules.availability == Availability::Always {
                assert_eq!(endpoint.who, "Anybody", "{names:?} would be answered from what is outdated");
            }
        }
    }
}

//! Every endpoint, sorted by who may call it, and the rules for it: to which accounts it is open, on which node it is
//! served, how long its body may be and what a call costs of which rate limit. An endpoint that does not stand here does
//! not compile, and one that is neither limited nor says why not fails a test. `docs/operating.md` has the costs as a
//! table, which a test compares with this one.
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
        account, admin, alias, appservice as appservices, authenticated_media, backup, config, context, delayed_events,
        device, directory, discovery, filter as filters, keys, knock, media, membership, message, peeking, presence,
        profile, push, read_marker, receipt, redact, relations, reporting, room, rtc, search, session, space, state,
        sync, tag, thirdparty, threads, to_device, typing, user_directory, voip,
    },
    federation::{discovery as server_discovery, transactions},
};

use super::{
    auth::{Administrators, AnonymousOr, Anybody, Appservices, Servers, Users, UsersAndGuests},
    client::{
        account_data, dehydrated_device, event_stream, initial_sync, media::old as old_media, server_notice,
        shared_secret, submit_token, threepid,
    },
    endpoint::{Callers, Forwarding, Policy, Rules},
    federation, front_page, health,
};
use crate::people::rate_limit::Limit;

/// In bytes.
const KIB: usize = 1024;

/// What a page of a list costs of `read`, or of `lookup`.
const LIST: u32 = 5;
/// What a whole room costs of `read`, or a walk through many.
const WHOLE_ROOM: u32 = 10;
/// What it costs of `account_data` to delete all keys of a backup.
const WHOLE_BACKUP: u32 = 50;
/// How many keys come at once, in bytes: some thousands. Clients send a hundred or two.
const KEYS: usize = 8 * 1024 * KIB;
/// An invitation comes with some of the room's state, in whole events. In bytes.
const INVITE: usize = 2048 * KIB;
/// What a report costs of `message`: each is for a person to read.
const REPORT: u32 = 5;

const MAILED: &str = "`login` of the address, for a mail";
const PROFILE: &str = "`profile` of the account: 1, and for the name and the avatar 1 for each room that the user is in, \
                       for other fields 1 for each KiB";
const TO_DEVICE: &str = "`to_device` of the account: 1 for each device, and 1 for each 4 KiB of what is for one";
const UPLOAD: &str = "`media` of the account: 1 for each MiB of the file";
/// In bytes. How large a file may be is configured, and refused with words of its own: `media/upload.rs`.
const ANY_SIZE: usize = usize::MAX;
const KEY_BACKUP: &str = "`read` of the account: 5, and 1 for each 1,000 keys or MiB after the first";
const KEY_QUERY: &str = "`lookup` of the address: 1 for each server whose keys are asked for";
const FOR_LOAD_BALANCERS: &str = "load balancers must get their answer, whoever else is at their address";
const ENDS_ITSELF: &str = "it ends the session that calls it, and logging in is limited";
const ADMINISTRATION: &str = "only administrators of the server can do it, who could do worse";
/// In bytes. Servers send less, but may escape each character.
const TRANSACTION: usize = 16 * 1024 * KIB;
const NOBODY: &str = "nobody can call it";

/// Gives requests their policies. An endpoint without further rules has those of its callers ([`Callers::rules`]).
///
/// A request stands under one kind of caller alone: twice would be two implementations of one trait.
macro_rules! policies {
    ($($who:ty { $($request:ty $(=> $($rule:ident $(($argument:expr))?),+)?;)+ })+) => { $($(
        impl Policy for $request {
            type Who = $who;

            fn rules() -> Rules {
                <$who as Callers>::rules(&<$request as Metadata>::METHOD)$($(.$rule($($argument)?))+)?
            }
        }
    )+)+ };
}

// What is not said is as in `Rules::of`: closed to suspended accounts unless it is a GET, served where it arrives, a
// body of 256 KiB, and for a GET one unit of its account's `read`; what a server calls is one unit of its own `server`. A
// limit is spent by the unit unless a cost is said.
policies! {
    Anybody {
        // For whom these count depends on a stage, or on the address that a body names.
        account::check_registration_token_validity::v1::Request
            => counted_by_handler("`registration` of the address: a guess at a token");
        account::get_username_availability::v3::Request
            => counted_by_handler("`challenge` of the address");
        account::register::v3::Request
            => counted_by_handler("`registration` of the address, or `challenge` to ask for the flows");
        account::request_3pid_management_token_via_email::v3::Request
            => counted_by_handler(MAILED);
        account::request_3pid_management_token_via_msisdn::v3::Request => lookup;
        account::request_password_change_token_via_email::v3::Request
            => counted_by_handler(MAILED);
        account::request_password_change_token_via_msisdn::v3::Request => lookup;
        account::request_registration_token_via_email::v3::Request
            => counted_by_handler(MAILED);
        account::request_registration_token_via_msisdn::v3::Request => lookup;
        alias::get_alias::v3::Request => lookup;
        directory::get_public_rooms::v3::Request => lookup, costs(LIST);
        discovery::discover_homeserver::Request => lookup;
        discovery::discover_policy_server::Request => lookup;
        discovery::discover_support::Request => lookup;
        // Who asks for keys can't be known before keys are.
        server_discovery::get_remote_server_keys::v2::Request => per_address(Limit::Lookup);
        server_discovery::get_remote_server_keys_batch::v2::Request => counted_by_handler(KEY_QUERY);
        server_discovery::get_server_keys::v2::Request => per_address(Limit::Lookup);
        server_discovery::get_server_version::v1::Request => per_address(Limit::Lookup);
        server_discovery::discover_homeserver::Request => lookup;
        profile::get_profile::v3::Request => lookup;
        profile::get_profile_field::v3::Request => lookup;
        session::get_login_types::v3::Request => lookup;
        // The name counts too, but it is in the body: the handler sees to that.
        session::login::v3::Request => per_address(Limit::Login);
        session::refresh_token::v3::Request
            => counted_by_handler("10 `lookup` of the account whose token it is, else 1 of the address");
        // These are no calls of a client's, or prove in the body who sends them.
        federation::openid::OpenIdUserInfo => always, per_address(Limit::Lookup);
        ruma::api::federation::thirdparty::bind_callback::v1::Request => costs(LIST), per_address(Limit::Lookup);
        front_page::FrontPage => always, per_address(Limit::Lookup);
        health::Alive => always, unlimited(FOR_LOAD_BALANCERS);
        health::Ready => always, unlimited(FOR_LOAD_BALANCERS);
        old_media::GetContent => lookup;
        old_media::GetContentAsFilename => lookup;
        old_media::GetContentThumbnail => lookup;
        shared_secret::CreateNonce => per_address(Limit::Lookup);
        shared_secret::Register => body(16 * KIB), per_address(Limit::Lookup);
        submit_token::Confirm => per_address(Limit::Lookup);
        submit_token::Submit => body(16 * KIB), per_address(Limit::Lookup);
    }

    // Other servers, which sign what they send.
    Servers {
        ruma::api::federation::authorization::get_event_authorization::v1::Request => costs(LIST);
        ruma::api::federation::backfill::get_backfill::v1::Request => costs(LIST);
        ruma::api::federation::directory::get_public_rooms::v1::Request => costs(LIST);
        ruma::api::federation::directory::get_public_rooms_filtered::v1::Request => costs(LIST);
        ruma::api::federation::event::get_event::v1::Request;
        ruma::api::federation::event::get_event_by_timestamp::v1::Request;
        ruma::api::federation::event::get_missing_events::v1::Request => costs(LIST);
        ruma::api::federation::event::get_room_state::v1::Request => costs(WHOLE_ROOM);
        ruma::api::federation::event::get_room_state_ids::v1::Request => costs(WHOLE_ROOM);
        ruma::api::federation::query::get_profile_information::v1::Request;
        ruma::api::federation::query::get_room_information::v1::Request;
        ruma::api::federation::space::get_hierarchy::v1::Request => costs(LIST);
        federation::join::SendJoinV1 => costs(WHOLE_ROOM);
        federation::leave::SendLeaveV1;
        ruma::api::federation::membership::create_invite::v1::Request => body(INVITE);
        ruma::api::federation::membership::create_invite::v2::Request => body(INVITE);
        ruma::api::federation::membership::create_join_event::v2::Request => costs(WHOLE_ROOM);
        ruma::api::federation::membership::create_knock_event::v1::Request;
        ruma::api::federation::membership::create_leave_event::v2::Request;
        ruma::api::federation::membership::prepare_join_event::v1::Request;
        ruma::api::federation::membership::prepare_knock_event::v1::Request;
        ruma::api::federation::membership::prepare_leave_event::v1::Request;
        ruma::api::federation::thirdparty::exchange_invite::v1::Request;
        // 50 events of 64 KiB at most, with what need not be kept of them, and 100 EDUs.
        transactions::send_transaction_message::v1::Request => body(TRANSACTION);
    }

    AnonymousOr<UsersAndGuests> {
        directory::get_room_visibility::v3::Request => lookup;
        discovery::get_supported_versions::Request => lookup;
        room::get_summary::v1::Request => lookup, costs(2);
    }

    AnonymousOr<Users> {
        // Without a token it is a reset by e-mail; with one, the old password is shown.
        account::change_password::v3::Request
            => suspended, counted_by_handler("`message` of the account and `login` of the device for each password; \
               without a token `challenge` of the address");
        // The service that watches over a call has no token.
        delayed_events::update_delayed_event::unstable_v2::Request
            => counted_by_handler("`message` of the account whose event it is, else of the address");
    }

    UsersAndGuests {
        account::whoami::v3::Request;
        authenticated_media::get_content::v1::Request;
        authenticated_media::get_content_as_filename::v1::Request;
        authenticated_media::get_content_thumbnail::v1::Request;
        context::get_context::v3::Request => costs(LIST);
        device::get_device::v3::Request;
        device::get_devices::v3::Request;
        device::update_device::v3::Request => per_account(Limit::Message);
        membership::get_member_events::v3::Request => costs(LIST);
        // Suspended accounts may join the room in which the server speaks to them: `suspension.rs` sees to that.
        membership::join_room_by_id::v3::Request => suspended, per_account(Limit::Join);
        // Not in the specification's list, but it is the way that clients join by.
        membership::join_room_by_id_or_alias::v3::Request => suspended, per_account(Limit::Join);
        membership::leave_room::v3::Request => suspended, per_account(Limit::Membership);
        message::get_message_events::v3::Request => costs(LIST);
        // Suspended accounts may send redactions of what they said themselves: `suspension.rs` sees to that.
        message::send_message_event::v3::Request
            => suspended, per_account(Limit::Message), costs_for_each(16 * KIB),
               forwarded(Forwarding::ToRoomUnlessDelayed);
        // Guests look at one room with it.
        peeking::listen_to_new_events::v3::Request;
        peeking::get_current_state::v3::Request => costs(WHOLE_ROOM);
        // Guests set their display name. A whole profile may have 64 KiB; what surrounds it may be as long again.
        profile::set_profile_field::v3::Request => body(128 * KIB), counted_by_handler(PROFILE);
        room::get_room_event::v3::Request;
        state::get_state_event_for_key::v3::Request;
        state::get_state_events::v3::Request => costs(LIST);
        // Closed to suspended accounts: state is what the room is to everybody in it.
        state::send_state_event::v3::Request
            => per_account(Limit::Message), costs_for_each(16 * KIB);
        // Closed to suspended accounts they could neither verify a device nor ask for the keys of what they are sent.
        // Clients send up to 250 messages at once, of a few KiB.
        to_device::send_event_to_device::v3::Request
            => suspended, body(2 * 1024 * KIB), counted_by_handler(TO_DEVICE);
        // While it waits for news it needs no look at the end of the log: see `auth.rs`.
        sync::sync_events::v3::Request => waits, counted_by_handler(
            "1 `read` of the account and 1 for each room; where rooms are sent whole, `sync`: 10 and 1 for each room");
    }

    Users {
        account::add_3pid::v3::Request => per_account(Limit::Message);
        account::bind_3pid::v3::Request => per_account(Limit::Message);
        // Suspended accounts can end themselves.
        account::deactivate::v3::Request => suspended, per_account(Limit::Message);
        account::delete_3pid::v3::Request => per_account(Limit::Message);
        account::get_3pids::v3::Request;
        account::request_openid_token::v3::Request => per_account(Limit::Message);
        account::unbind_3pid::v3::Request => per_account(Limit::Message);
        // Account data is seen by its owner alone.
        account_data::DeleteGlobal => suspended, per_account(Limit::AccountData);
        account_data::DeleteOfRoom => suspended, per_account(Limit::AccountData);
        admin::get_user_info::v3::Request;
        alias::create_alias::v3::Request => per_account(Limit::Message);
        alias::delete_alias::v3::Request => per_account(Limit::Message);
        authenticated_media::get_media_config::v1::Request;
        // The server goes and looks at a page.
        authenticated_media::get_media_preview::v1::Request => costs(LIST);
        // Closed to nobody who can read: without their keys they can't.
        backup::add_backup_keys::v3::Request
            => suspended, body(KEYS), per_account(Limit::AccountData), costs_for_each(16 * KIB);
        backup::add_backup_keys_for_room::v3::Request
            => suspended, body(KEYS), per_account(Limit::AccountData), costs_for_each(16 * KIB);
        backup::add_backup_keys_for_session::v3::Request
            => suspended, per_account(Limit::AccountData), costs_for_each(16 * KIB);
        backup::create_backup_version::v3::Request => suspended, body(64 * KIB), per_account(Limit::AccountData);
        backup::delete_backup_keys::v3::Request => suspended, per_account(Limit::AccountData), costs(WHOLE_BACKUP);
        backup::delete_backup_keys_for_room::v3::Request
            => suspended, per_account(Limit::AccountData), costs(WHOLE_BACKUP);
        backup::delete_backup_keys_for_session::v3::Request => suspended, per_account(Limit::AccountData);
        backup::delete_backup_version::v3::Request => suspended, per_account(Limit::AccountData), costs(WHOLE_BACKUP);
        backup::get_backup_info::v3::Request;
        backup::get_backup_keys::v3::Request => counted_by_handler(KEY_BACKUP);
        backup::get_backup_keys_for_room::v3::Request => counted_by_handler(KEY_BACKUP);
        backup::get_backup_keys_for_session::v3::Request;
        backup::get_latest_backup_info::v3::Request;
        backup::update_backup_version::v3::Request => suspended, body(64 * KIB), per_account(Limit::AccountData);
        config::get_global_account_data::v3::Request;
        config::get_room_account_data::v3::Request;
        config::set_global_account_data::v3::Request
            => suspended, per_account(Limit::AccountData), costs_for_each(KIB);
        config::set_room_account_data::v3::Request
            => suspended, per_account(Limit::AccountData), costs_for_each(KIB);
        // A device of one's own, as with the keys of those that are logged in.
        dehydrated_device::Delete => suspended, per_account(Limit::Message);
        dehydrated_device::Events => costs(LIST);
        dehydrated_device::EventsOfOld => suspended, per_account(Limit::Read), costs(LIST);
        dehydrated_device::Get;
        dehydrated_device::Put => suspended, per_account(Limit::Message), costs_for_each(16 * KIB);
        delayed_events::get_all_delayed_events::unstable::Request;
        delayed_events::get_delayed_event::unstable::Request;
        // Scheduling counts as sending does.
        delayed_events::send_delayed_event::unstable::Request => per_account(Limit::Message);
        delayed_events::update_delayed_event::unstable_v1::Request => per_account(Limit::Message);
        // A lost device must be locked out, whatever else its owner may do.
        device::delete_device::v3::Request => suspended, per_account(Limit::Message);
        device::delete_devices::v3::Request => suspended, per_account(Limit::Message);
        // A POST, but it only reads.
        directory::get_public_rooms_filtered::v3::Request
            => suspended, per_account(Limit::Read), costs(LIST);
        directory::set_room_visibility::v3::Request => per_account(Limit::Message);
        discovery::get_capabilities::v3::Request;
        event_stream::FindEvent;
        filters::create_filter::v3::Request
            => suspended, body(64 * KIB), per_account(Limit::AccountData), costs_for_each(KIB);
        filters::get_filter::v3::Request;
        initial_sync::InitialSync => counted_by_handler("`sync` of the account: 10 and 1 for each room");
        // Of somebody's keys no more are taken than the sender could write messages, and many devices cost more.
        keys::claim_keys::v3::Request
            => suspended, per_account(Limit::Message), costs_for_each(4 * KIB);
        // A POST, but it only reads. A KiB names about thirty users.
        keys::get_keys::v3::Request
            => suspended, per_account(Limit::Read), costs_for_each(KIB);
        keys::upload_keys::v3::Request
            => suspended, per_account(Limit::AccountData), costs_for_each(KIB);
        keys::upload_signatures::v3::Request
            => suspended, per_account(Limit::AccountData), costs_for_each(KIB);
        keys::upload_signing_keys::v3::Request
            => suspended, per_account(Limit::AccountData), costs_for_each(KIB);
        keys::get_key_changes::v3::Request => costs(LIST);
        knock::knock_room::v3::Request => per_account(Limit::Membership);
        // Closed to suspended accounts: others see what is uploaded.
        media::create_content::v3::Request => body(ANY_SIZE), counted_by_handler(UPLOAD);
        media::create_content_async::v3::Request => body(ANY_SIZE), counted_by_handler(UPLOAD);
        media::create_mxc_uri::v1::Request => per_account(Limit::Media);
        membership::ban_user::v3::Request => per_account(Limit::Membership);
        membership::forget_room::v3::Request => suspended, per_account(Limit::Membership);
        membership::get_mutual_rooms::v1::Request => costs(LIST);
        membership::invite_user::v3::Request => per_account(Limit::Membership);
        membership::joined_members::v3::Request => costs(LIST);
        membership::joined_rooms::v3::Request;
        membership::kick_user::v3::Request => per_account(Limit::Membership);
        membership::unban_user::v3::Request => per_account(Limit::Membership);
        old_media::GetMediaConfig;
        old_media::GetMediaPreview => costs(LIST);
        presence::get_presence::v3::Request;
        presence::set_presence::v3::Request => per_account(Limit::Ephemeral);
        profile::delete_profile_field::v3::Request => counted_by_handler(PROFILE);
        push::get_pushers::v3::Request;
        push::get_pushrule::v3::Request;
        push::get_pushrule_actions::v3::Request;
        push::get_pushrule_enabled::v3::Request;
        push::get_pushrules_all::v3::Request;
        push::get_pushrules_global_scope::v3::Request;
        read_marker::set_read_marker::v3::Request => suspended, per_account(Limit::Ephemeral);
        receipt::create_receipt::v3::Request => suspended, per_account(Limit::Ephemeral);
        redact::redact_event::v3::Request
            => suspended, per_account(Limit::Message), forwarded(Forwarding::ToRoom);
        relations::get_relating_events::v1::Request => costs(LIST);
        relations::get_relating_events_with_rel_type::v1::Request => costs(LIST);
        relations::get_relating_events_with_rel_type_and_event_type::v1::Request => costs(LIST);
        // Reports are for the operator, to whom suspended users may turn.
        reporting::report_user::v3::Request => suspended, per_account(Limit::Message), costs(REPORT);
        room::aliases::v3::Request;
        room::create_room::v3::Request => counted_by_handler(
            "`create_room` of the account: 8 and 1 for each event of `initial_state` and each invitation");
        room::get_event_by_timestamp::v1::Request => costs(LIST);
        room::report_content::v3::Request => suspended, per_account(Limit::Message), costs(REPORT);
        room::report_room::v3::Request => suspended, per_account(Limit::Message), costs(REPORT);
        // What it takes along of the old room: its settings, its bans, the spaces that name it.
        room::upgrade_room::v3::Request => per_account(Limit::CreateRoom), costs(50);
        rtc::transports::v1::Request;
        search::search_events::v3::Request => suspended, per_account(Limit::Search), costs(2);
        session::get_login_token::v1::Request => suspended, per_account(Limit::Message);
        // A locked client can end its session, and nothing else.
        session::logout::v3::Request => locked, unlimited(ENDS_ITSELF);
        session::logout_all::v3::Request => locked, unlimited(ENDS_ITSELF);
        space::get_hierarchy::v1::Request => costs(WHOLE_ROOM);
        tag::create_tag::v3::Request => suspended, per_account(Limit::AccountData), costs_for_each(KIB);
        tag::delete_tag::v3::Request => suspended, per_account(Limit::AccountData);
        tag::get_tags::v3::Request;
        thirdparty::get_location_for_protocol::v3::Request;
        thirdparty::get_location_for_room_alias::v3::Request;
        thirdparty::get_protocol::v3::Request;
        thirdparty::get_protocols::v3::Request;
        thirdparty::get_user_for_protocol::v3::Request;
        thirdparty::get_user_for_user_id::v3::Request;
        threads::get_threads::v1::Request => costs(LIST);
        threepid::AddContact => per_account(Limit::Message);
        typing::create_typing_event::v3::Request => per_account(Limit::Ephemeral);
        // A POST, but it only reads.
        user_directory::search_users::v3::Request => suspended, per_account(Limit::Search);
        voip::get_turn_server_info::v3::Request;
    }

    Administrators {
        admin::is_user_locked::v1::Request;
        admin::is_user_suspended::v1::Request;
        admin::lock_user::v1::Request => unlimited(ADMINISTRATION);
        admin::suspend_user::v1::Request => unlimited(ADMINISTRATION);
        server_notice::Post => unlimited(ADMINISTRATION);
        server_notice::Put => unlimited(ADMINISTRATION);
    }

    Appservices {
        // Nobody can call these as yet: see `auth.rs`.
        appservices::request_ping::v1::Request => unlimited(NOBODY);
        appservices::set_room_visibility::v3::Request => unlimited(NOBODY);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use http::Method;

    use super::KIB;
    use crate::{
        api::{
            endpoint::{Availability, Cost, Forwarding, OpenTo, RateLimit, Rules},
            endpoints,
            route::ListedEndpoint,
        },
        config::RateLimitsConfig,
        people::rate_limit::{Limit, Rate},
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
                "ServerSignatures" => &["Servers"],
                scheme => panic!("{scheme} is new: who is that?"),
            };
            if !expected.contains(&endpoint.who) {
                others.extend(endpoint.names().first().cloned());
            }
        }
        others.sort();
        let reasons = [
            // Whoever may know of a hidden room shows by a token that they may.
            "GET /directory/list/room/{room_id}",
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
            "GET /media/download/{server_name}/{media_id}",
            "GET /media/download/{server_name}/{media_id}/{filename}",
            "GET /media/thumbnail/{server_name}/{media_id}",
            "POST /rooms/{room_id}/join",
            "POST /join/{room_id_or_alias}",
            "POST /rooms/{room_id}/leave",
            "PUT /rooms/{room_id}/send/{event_type}/{txn_id}",
            "PUT /rooms/{room_id}/state/{event_type}/{state_key}",
            "PUT /sendToDevice/{event_type}/{txn_id}",
            "PUT /profile/{user_id}/{field}",
            "GET /devices",
            "GET /devices/{device_id}",
            "PUT /devices/{device_id}",
            "GET /account/whoami",
            "GET /room_summary/{room_id_or_alias}",
            "GET /_matrix/client/versions",
            // Needs no token: guests are told what strangers are, and what they may know of by theirs.
            "GET /directory/list/room/{room_id}",
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
            if endpoint.method == Method::GET {
                assert_ne!(endpoint.rules.open_to, OpenTo::Unrestricted, "{names:?} only reads");
            }
            if endpoint.rules.availability == Availability::Always {
                assert_eq!(endpoint.who, "Anybody", "{names:?} would be answered from what is outdated");
            }
        }
    }

    #[test]
    fn every_endpoint_is_limited_or_says_why_not() {
        for endpoint in endpoints().list() {
            let names = endpoint.names();
            match endpoint.rules.rate_limit {
                RateLimit::Undecided => panic!("{names:?} is neither limited nor says why not: decide in policy.rs"),
                RateLimit::Unlimited(text) | RateLimit::InHandler(text) => {
                    assert!(text.split(' ').count() > 3, "{names:?}: {text:?} says nothing");
                    assert_eq!(endpoint.rules.cost, Cost::Units(1), "{names:?} has a cost that nobody counts");
                }
                // Strangers would not be counted.
                RateLimit::PerAccount(_) => {
                    let always = ["Users", "UsersAndGuests", "Administrators"];
                    assert!(always.contains(&endpoint.who), "{names:?} can't count for an account");
                }
                RateLimit::PerAddress(_) => assert_eq!(endpoint.who, "Anybody", "{names:?} knows who calls"),
                RateLimit::PerServer(_) => assert_eq!(endpoint.who, "Servers", "{names:?} is not for servers"),
                RateLimit::Lookup => {
                    let strangers = endpoint.who == "Anybody" || endpoint.who.ends_with('>');
                    assert!(strangers, "{names:?} is closed to strangers");
                }
            }
        }
    }

    /// A line of the table in `docs/operating.md` that says what calls cost.
    fn documented(rules: Rules) -> String {
        let spent = match rules.rate_limit {
            RateLimit::PerAccount(limit) => format!("`{}` of the account", limit.name()),
            RateLimit::PerAddress(limit) => format!("`{}` of the address", limit.name()),
            RateLimit::PerServer(limit) => format!("`{}` of the other server", limit.name()),
            RateLimit::Lookup => "`read` of the account, or `lookup` of a stranger's address".to_owned(),
            RateLimit::InHandler(what) => return what.to_owned(),
            RateLimit::Unlimited(reason) => return format!("nothing: {reason}"),
            RateLimit::Undecided => "undecided".to_owned(),
        };
        match rules.cost {
            Cost::Units(units) => format!("{units} {spent}"),
            Cost::ForEach(bytes) => format!("1 {spent}, and 1 for each {} KiB", bytes / KIB),
        }
    }

    fn read_operating() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap()
    }

    #[test]
    fn operators_read_what_each_call_costs() {
        let mut table: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for endpoint in endpoints().list() {
            let name = endpoint.names().pop().unwrap();
            table.entry(documented(endpoint.rules)).or_default().insert(format!("`{name}`"));
        }
        let lines = table.into_iter().map(|(cost, names)| {
            let names: Vec<String> = names.into_iter().collect();
            format!("| {cost} | {} |\n", names.join(", "))
        });
        let table = format!("| a call costs | endpoints |\n|---|---|\n{}\n", lines.collect::<String>());
        assert!(read_operating().contains(&table), "docs/operating.md is to have this table:\n\n{table}");
    }

    #[test]
    fn operators_read_what_is_allowed() {
        let (operating, limits) = (read_operating(), RateLimitsConfig::default());
        for limit in Limit::ALL {
            let Rate { per_second, burst } = limit.rate(&limits);
            let expected = format!("| `{}` | {per_second} | {burst} | ", limit.name());
            assert!(operating.contains(&expected), "docs/operating.md is to have a line that begins {expected:?}");
        }
    }
}

"""Accounts through matrix-nio: registration, login, profile, devices, logout."""

import nio

from person import PASSWORD, Person, fresh, ok, refused


async def test_registers_and_logs_in():
    person = Person(fresh("newcomer"))
    registered = await person.register()
    assert registered.user_id.startswith(f"@{person.username}:")
    assert registered.access_token and registered.device_id

    flows = ok(await person.client.login_info()).flows
    assert "m.login.password" in flows
    logged_in = await person.log_in()
    assert (logged_in.user_id, ok(await person.client.whoami()).user_id) == (person.id, person.id)
    assert logged_in.device_id != registered.device_id
    await person.client.close()


async def test_a_name_is_taken_once_and_a_wrong_password_refused(arrive):
    alice = await arrive("alice")
    stranger = Person(alice.username)
    refused(await stranger.client.register(alice.username, "another password"), "M_USER_IN_USE")
    refused(await stranger.client.login("another password"), "M_FORBIDDEN")
    await stranger.client.close()


async def test_profile(arrive):
    alice = await arrive("alice")
    ok(await alice.client.set_displayname("Alice of the hearth"))
    ok(await alice.client.set_avatar("mxc://localhost/portrait"))
    assert ok(await alice.client.get_displayname()).displayname == "Alice of the hearth"
    profile = ok(await alice.client.get_profile(alice.id))
    assert (profile.displayname, profile.avatar_url) == ("Alice of the hearth", "mxc://localhost/portrait")


async def test_a_display_name_is_seen_by_the_others_in_the_room(two):
    alice, bob, room_id = two
    ok(await alice.client.set_displayname("Alice of the hearth"))
    await bob.until(
        "the new name", lambda: bob.room(room_id).users[alice.id].display_name == "Alice of the hearth"
    )


async def test_presence(two):
    alice, bob, room_id = two
    ok(await alice.client.set_presence("unavailable", "fetching wood"))
    await bob.until("the presence", lambda: bob.room(room_id).users[alice.id].status_msg == "fetching wood")
    assert ok(await bob.client.get_presence(alice.id)).status_msg == "fetching wood"


async def test_devices(arrive):
    alice = await arrive("alice")
    ok(await alice.client.update_device(alice.client.device_id, {"display_name": "by the window"}))
    devices = ok(await alice.client.devices()).devices
    here = next(device for device in devices if device.id == alice.client.device_id)
    other = next(device for device in devices if device.id != alice.client.device_id)
    assert here.display_name == "by the window"

    challenge = await alice.client.delete_devices([other.id])
    assert isinstance(challenge, nio.DeleteDevicesAuthResponse), challenge
    ok(
        await alice.client.delete_devices(
            [other.id],
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": alice.id},
                "password": PASSWORD,
                "session": challenge.session,
            },
        )
    )
    assert [device.id for device in ok(await alice.client.devices()).devices] == [here.id]


async def test_logout_ends_one_session_or_all(arrive):
    alice = await arrive("alice")
    elsewhere = Person(alice.username)
    await elsewhere.log_in()
    token = elsewhere.client.access_token
    ok(await elsewhere.client.logout())
    elsewhere.client.access_token = token
    refused(await elsewhere.client.whoami(), "M_UNKNOWN_TOKEN")
    ok(await alice.client.whoami())

    await elsewhere.log_in()
    token = alice.client.access_token
    ok(await elsewhere.client.logout(all_devices=True))
    alice.client.access_token = token
    refused(await alice.client.whoami(), "M_UNKNOWN_TOKEN")
    await elsewhere.client.close()

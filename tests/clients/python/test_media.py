"""Media through matrix-nio: pictures that are sent and shown, in whole and small, and worn by people and rooms."""

import nio

from person import ok, refused
from pictures import CAMERA, look_at, photograph, thumbnail, upload


async def test_a_picture_is_sent_and_shown_whole_and_small(two):
    alice, bob, room_id = two
    data = photograph(800, 600)
    assert CAMERA.encode() in data
    mxc, _ = await upload(alice, data, filename="fire place.jpg", filesize=len(data))
    info = {"mimetype": "image/jpeg", "w": 800, "h": 600, "size": len(data)}
    content = {"msgtype": "m.image", "body": "fire place.jpg", "url": mxc, "info": info}
    sent = ok(await alice.client.room_send(room_id, "m.room.message", content)).event_id
    heard = await bob.hears(room_id, sent)
    assert isinstance(heard, nio.RoomMessageImage)

    whole = ok(await bob.client.download(mxc=heard.url))
    assert (whole.body, whole.content_type, whole.filename) == (data, "image/jpeg", "fire place.jpg")
    assert ok(await bob.client.download(mxc=heard.url, filename="ours.jpg")).filename == "ours.jpg"
    for size in [(32, 32, nio.ResizingMethod.crop), (96, 96, nio.ResizingMethod.crop), (320, 240), (640, 480)]:
        small = await thumbnail(bob, heard.url, *size)
        assert (small.content_type, look_at(small.body).size) == ("image/jpeg", size[:2])


async def test_a_thumbnail_stands_upright_and_does_not_tell_of_the_camera(two):
    alice, bob, _ = two
    # Sent in parts of which nobody knows the number beforehand.
    mxc, _ = await upload(alice, photograph(800, 600, orientation=6))
    small = await thumbnail(bob, mxc, 320, 240)
    picture = look_at(small.body)
    assert picture.size == (180, 240)
    assert not picture.getexif()
    assert CAMERA.encode() not in small.body


async def test_what_is_no_picture_has_no_thumbnail_and_what_is_not_there_is_not_found(two):
    alice, bob, _ = two
    mxc, _ = await upload(alice, b"ash", "text/plain", "ash.txt")
    server_name, media_id = mxc.removeprefix("mxc://").split("/")
    assert isinstance(await bob.client.thumbnail(server_name, media_id, 96, 96), nio.ThumbnailError)
    assert ok(await bob.client.download(mxc=mxc)).body == b"ash"
    refused(await bob.client.download(mxc=f"mxc://{server_name}/nothing"), "M_NOT_FOUND")


async def test_the_server_tells_how_large_a_file_may_be(arrive):
    alice = await arrive("alice")
    assert ok(await alice.client.content_repository_config()).upload_size > 1_000_000


async def test_a_person_wears_a_picture(two):
    alice, bob, room_id = two
    data = photograph(300, 200)
    mxc, _ = await upload(alice, data, filename="portrait.jpg")
    ok(await alice.client.set_avatar(mxc))
    await bob.until("the avatar", lambda: bob.room(room_id).avatar_url(alice.id) == mxc)
    avatar = ok(await bob.client.get_avatar(alice.id)).avatar_url
    assert ok(await bob.client.download(mxc=avatar)).body == data
    assert look_at((await thumbnail(bob, avatar, 96, 96, nio.ResizingMethod.crop)).body).size == (96, 96)


async def test_a_room_wears_a_picture(two):
    alice, bob, room_id = two
    data = photograph(256, 256)
    mxc, _ = await upload(alice, data, filename="room.jpg")
    ok(await alice.client.room_put_state(room_id, "m.room.avatar", {"url": mxc}))
    await bob.until("the avatar", lambda: bob.room(room_id).room_avatar_url == mxc)
    assert ok(await bob.client.download(mxc=bob.room(room_id).room_avatar_url)).body == data
    assert look_at((await thumbnail(bob, mxc, 32, 32, nio.ResizingMethod.crop)).body).size == (32, 32)

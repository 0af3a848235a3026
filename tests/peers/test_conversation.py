"""People of two servers talk: messages, edits, reactions, redactions."""

from conftest import settle
from person import MESSAGE


def test_people_of_two_servers_talk(sides):
    alice, bob = sides.people("Alice", "bob")
    room = alice.creates(sides.version, name="The hearth", topic="embers")
    bob.joins(room, sides.here)
    alice.sees_member(room, bob, "join")
    assert bob.state(room, "m.room.name") == {"name": "The hearth"}
    assert bob.state(room, "m.room.create")["room_version"] == sides.version

    for speaker, listener in ((alice, bob), (bob, alice)):
        said = speaker.says(room, "Grüße, 🔥")
        heard = listener.hears(room, said)
        assert (heard["sender"], heard["content"]["body"]) == (speaker.id, "Grüße, 🔥")

        new = {"msgtype": "m.text", "body": "greetings"}
        relation = {"rel_type": "m.replace", "event_id": said}
        edit = speaker.sends(room, MESSAGE, {**new, "body": "* greetings", "m.new_content": new, "m.relates_to": relation})
        listener.hears(room, edit)
        bundled = listener.event(room, said)["unsigned"]["m.relations"]["m.replace"]
        assert (bundled["event_id"], bundled["content"]["m.new_content"]) == (edit, new)

        relation = {"rel_type": "m.annotation", "event_id": said, "key": "🔥"}
        reaction = listener.sends(room, "m.reaction", {"m.relates_to": relation})
        assert speaker.hears(room, reaction)["content"]["m.relates_to"] == relation
        related = speaker.get("rooms", room, "relations", said, "m.annotation", version="v1")["chunk"]
        assert [one["event_id"] for one in related] == [reaction]

        relation = {"rel_type": "m.thread", "event_id": said}
        reply = listener.sends(room, MESSAGE, {"msgtype": "m.text", "body": "in a thread", "m.relates_to": relation})
        speaker.hears(room, reply)
        assert speaker.event(room, said)["unsigned"]["m.relations"]["m.thread"]["count"] == 1
    settle(room, alice, bob)


def test_what_is_redacted_is_gone_on_both(sides):
    alice, bob = sides.people("Alice", "bob")
    room = alice.creates(sides.version)
    bob.joins(room, sides.here)
    rude = {speaker: speaker.says(room, "something rude") for speaker in (alice, bob)}
    alice.hears(room, rude[bob])
    bob.hears(room, rude[alice])

    # What is one's own, and what another said where one has the power.
    redactions = {rude[alice]: alice.redacts(room, rude[alice], "manners"), rude[bob]: alice.redacts(room, rude[bob], "manners")}
    for said, redaction in redactions.items():
        heard = bob.hears(room, redaction)
        assert (heard["redacts"], heard["content"]["reason"]) == (said, "manners")
        for person in (alice, bob):
            event = person.event(room, said)
            assert event["content"] == {}
            assert event["unsigned"]["redacted_because"]["event_id"] == redaction
    own = bob.says(room, "oh")
    redaction = bob.redacts(room, own, "nothing")
    alice.hears(room, redaction)
    assert alice.event(room, own)["content"] == {}
    settle(room, alice, bob)

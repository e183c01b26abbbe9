"""Policies in Rego, to the same effect as NSM's own, in the words of this project."""

TOKENS_VALID = """package nsm

default valid = false

decoded := {i | some i; [_, _, _] := io.jwt.decode(input.path_segments[i].token)}

valid { every_one_is(decoded) }

every_one_is(positions) { count(positions) == count(input.path_segments) }
every_one_is(_) { not input.path_segments }
"""

TOKENS_EXPIRED = """package nsm

default valid = false

late := {i |
    some i
    segment := input.path_segments[i]
    not lives(segment.token)
}

lives(token) {
    claims := io.jwt.decode(token)[1]
    claims.exp * 1000000000 > time.now_ns()
}

valid { count(late) == 0 }
"""

TOKENS_CHAINED = """package nsm

default valid = false

claims(i) = io.jwt.decode(input.path_segments[i].token)[1]

linked := {i |
    input.path_segments[i]
    next := claims(i + 1).sub
    claims(i).aud[_] == next
}

valid { count(input.path_segments) - count(linked) <= 1 }
valid { not input.path_segments }
"""

PREV_TOKEN_SIGNED = """package nsm

default valid = false

valid {
    input.index > 0
    io.jwt.verify_es256(input.path_segments[input.index - 1].token, input.auth_info.certificate)
}
"""

NEXT_TOKEN_SIGNED = """package nsm

default valid = false
default here = 0

here = input.index

valid { io.jwt.verify_es256(input.path_segments[here + 1].token, input.auth_info.certificate) }
"""

CLIENT_ALLOWED = """package nsm

default valid = false

owner := input.resource_path_ids_map[input.resource_name][0]

valid { not owner }
valid { owner == input.resource_id }
"""

SERVICE_CONNECTION = """package nsm

default valid = false

own := {id | id := input.spiffe_id_connection_map[input.service_spiffe_id][_]}

valid { own[input.selector_connection_ids[_]] }
"""

NOBODY = """package nsm

default valid = false
"""

EVERYBODY = """package nsm

valid = true
"""

LOOP = """package nsm

default valid = false

numbers := numbers.range(1, 4000)

valid { not input.path_segments }
valid {
    input.path_segments[0].name == "slow"
    count([a | numbers[a]; numbers[b]; a == b]) < 0
}
valid { input.path_segments[0].name != "slow" }
"""
"""Takes minutes for a path that begins at "slow"."""

CRASH = """package nsm

default valid = false

valid { not input.path_segments }
valid {
    input.path_segments[0].name == "bad"
    count(numbers.range(1, 100000000)) > 0
}
valid { input.path_segments[0].name != "bad" }
"""
"""Wants gigabytes for a path that begins at "bad"."""

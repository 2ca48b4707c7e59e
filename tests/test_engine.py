"""The engine: a Ray cluster of two nodes on loopback does the same as this process, also when a node is killed in the middle."""

import asyncio
import os
import socket
import sys
import threading
import time

import numpy as np
import pytest

from tests.chat_server import ChatServer, Reply, completion
from ultralink_nb.asking import ask_all
from ultralink_nb.chat import ChatError, ChatRequest, open_chat_model
from ultralink_nb.embedding import BadEmbedding, embed
from ultralink_nb.encoders import Encoder, open_encoder
from ultralink_nb.engine import LocalEngine, open_engine
from ultralink_nb.ledger import open_ledger
from ultralink_nb.neighbours import search_between
from ultralink_nb.parameters import BadParameter
from ultralink_nb.redundancy import candidate_pairs
from ultralink_nb.vectors import centre

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "PYTHONWARNINGS": "ignore",
         "RAY_raylet_start_wait_time_s": "120", "RAY_agent_register_timeout_ms": "120000"}  # a busy machine starts slowly


def node() -> dict:
    """A node's options; its agents' ports are given, since Ray waits a short time only for those that it chooses."""
    names = "metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port"
    sockets = []
    for _ in names:
        sockets.append(socket.create_server(("127.0.0.1", 0)))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False, **dict(zip(names, ports, strict=True))}


@pytest.fixture(scope="module")
def cluster():
    before = dict(os.environ)
    os.environ.update(QUIET)
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node())
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def engine(cluster):
    """The engine on two nodes; whoever kills the second leaves it to this to start another."""
    while len(cluster.list_all_nodes()) < 2:
        cluster.add_node(**node())
    cluster.wait_for_nodes()
    return open_engine("ray", cluster.address)


def kill_second_node(cluster, after: float) -> threading.Thread:
    second = next(iter(cluster.worker_nodes))
    thread = threading.Thread(target=lambda: (time.sleep(after), cluster.remove_node(second, allow_graceful=False)))
    thread.start()
    return thread


class SlowEncoder(Encoder):
    """Vectors that the text decides, slowly; says from which process they come."""

    name, identity, dimension = "slow", "slow 1", 8

    def encode(self, texts: list[str]) -> np.ndarray:
        time.sleep(0.4)
        return np.array([np.random.default_rng(list(text.encode())).normal(size=8) for text in texts], dtype=np.float32)


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.3)
    return number * number, os.getpid()


def fail(number: int) -> int:
    raise BadEmbedding(f"number {number} is bad")


def test_blocks_run_elsewhere_in_order_and_few_at_a_time(engine):
    taken = []
    results = engine.map(slow_square, ((taken.append(number) or number,) for number in range(40)))
    first = next(results)
    assert len(taken) <= 6, "the driver reads blocks as they are needed"
    results.close()
    done = list(engine.map(slow_square, ((number,) for number in range(6))))
    assert [square for square, _ in done] == [0, 1, 4, 9, 16, 25] and first[0] == 0
    assert os.getpid() not in {pid for _, pid in done}
    with pytest.raises(BadEmbedding, match="number 3 is bad"):
        list(engine.map(fail, [(3,)]))
    assert list(LocalEngine().map(pow, [(2, 3), (3, 2)])) == [8, 9]


def test_encoding_is_the_same_there_and_a_killed_node_loses_nothing(engine, cluster, tmp_path):
    texts = [f"text number {number}" for number in range(100)]
    here = embed(texts, SlowEncoder(), tmp_path / "here", batch_tokens=40)
    killing = kill_second_node(cluster, after=1.0)
    there = embed(texts, SlowEncoder(), tmp_path / "there", batch_tokens=40, engine=engine)
    killing.join()
    assert len(cluster.list_all_nodes()) == 1, "the node is gone"
    assert np.array_equal(here, there)


def test_the_default_encoder_gives_the_same_vectors_there(engine, tmp_path):
    texts = ["Wie alt ist das Universum?", "¿Cuántos años tiene el universo?", "一二三"] * 10
    texts += [f"Question {n}?" for n in range(70)]
    encoder = open_encoder("use")
    here, there = (embed(texts, encoder, tmp_path / name, 400, engine=one)
                   for name, one in (("here", LocalEngine()), ("there", engine)))
    np.testing.assert_allclose(here, there, atol=1e-6)


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_neighbours_are_the_same_there(engine, cluster, monkeypatch, kind):
    from ultralink_nb import neighbours

    rng = np.random.default_rng(1)
    content = rng.normal(size=(150, 16))
    vectors = np.concatenate([content + rng.normal(scale=0.3, size=content.shape) for _ in range(3)]).astype(np.float32)
    languages = [code for code in ("en", "fr", "zh") for _ in range(150)]
    centred = centre(vectors, languages)
    monkeypatch.setattr(neighbours, "BLOCK", 8)  # blocks of 64 rows: three a language, the last one smaller
    here, there = search_between(centred, 4, kind), search_between(centred, 4, kind, engine=engine)
    assert here.keys() == there.keys()
    for pair in here:
        assert np.array_equal(here[pair].rows, there[pair].rows)
        np.testing.assert_allclose(here[pair].similarity, there[pair].similarity, atol=1e-6)
    assert np.array_equal(candidate_pairs(centred).left, candidate_pairs(centred, engine=engine).left)


def request(number: int) -> ChatRequest:
    return ChatRequest(messages=({"role": "user", "content": f"question {number}"},), temperature=0.0)


def test_generation_is_the_same_there_and_a_killed_node_loses_nothing(engine, cluster, tmp_path):
    async def collect(model) -> list[str]:
        return [answer.text async for _, answer in ask_all(range(40), lambda n: model.complete(request(n)), concurrency=4)]

    def respond(body: dict, _: int) -> Reply:
        return Reply(body=completion("answer to " + body["messages"][-1]["content"]), delay=0.3)

    with ChatServer(respond) as server:
        ledger = open_ledger(tmp_path)
        model = open_chat_model("m", base_url=server.url, concurrency=4, ledger=ledger, engine=engine)
        killing = kill_second_node(cluster, after=1.0)
        answers = asyncio.run(collect(model))
        killing.join()
        assert answers == [f"answer to question {number}" for number in range(40)]
        asked = len(server.requests)
        assert 40 <= asked <= 44, "only what was in flight on the dead node was asked again"
        local = open_chat_model("m", base_url=server.url, concurrency=4, ledger=ledger)
        assert asyncio.run(collect(local)) == answers and len(server.requests) == asked, "the ledger here holds every answer"


def test_errors_of_a_model_come_back_whole(engine):
    with ChatServer(lambda *_: Reply(status=401, body=b"{}")) as server:
        model = open_chat_model("m", base_url=server.url, ledger=None, engine=engine)
        with pytest.raises(ChatError, match="check the key") as refused:
            asyncio.run(model.complete(request(1)))
        assert refused.value.cause == "http_401"
    with pytest.raises(ChatError, match="base_url must look like"):
        open_chat_model("m", base_url="nowhere", ledger=None, engine=engine)


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadParameter, match=r"engine: ray needs pip install 'ultralink-nb\[ray\]'"):
        open_engine("ray")
    assert isinstance(open_engine(), LocalEngine)

#!/usr/bin/env python3
"""Sentence embeddings: adyton-bench and ONNX Runtime (f32) in turns. Called by `scripts/bench embed`.

  bench-embed.py OURS FOLDER     FOLDER: model.safetensors, config.json, tokenizer.json, vocab.txt of a BERT encoder

The graph for ONNX Runtime is made here from the same weights: embeddings, layers, mean over the tokens, length 1.
"""
import json, os, statistics, subprocess, sys, tempfile, time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROUNDS = int(os.environ.get("ROUNDS", "5"))
THREADS = int(os.environ.get("THREADS", "2"))
SHAPES = [(1, 16), (8, 64), (32, 64)]
WORD = "hello"


def tensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data[slice(*t["data_offsets"])], np.float32).reshape(t["shape"])
            for name, t in header.items() if t["dtype"] == "F32"}


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def const(self, value):
        self.count += 1
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), "c%d" % self.count))
        return "c%d" % self.count

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(kind, list(inputs), ["n%d" % self.count], **attributes))
        return "n%d" % self.count


def model(folder):
    config, w = json.load(open(folder + "/config.json")), tensors(folder + "/model.safetensors")
    if any(name.startswith("bert.") for name in w):
        w = {name.removeprefix("bert."): value for name, value in w.items()}
    heads, dim, epsilon = config["num_attention_heads"], config["hidden_size"], config["layer_norm_eps"]
    g = Graph()
    norm = lambda x, p: g.op("LayerNormalization", x, g.const(w[p + ".weight"]), g.const(w[p + ".bias"]), epsilon=epsilon)
    dense = lambda x, p: g.op("Add", g.op("MatMul", x, g.const(w[p + ".weight"].T)), g.const(w[p + ".bias"]))
    e = "embeddings."
    length = g.op("Gather", g.op("Shape", "ids"), g.const(np.int64(1)))
    places = g.op("Slice", g.const(w[e + "position_embeddings.weight"]), g.const(np.array([0])),
                  g.op("Unsqueeze", length, g.const(np.array([0]))), g.const(np.array([0])))
    x = g.op("Gather", g.const(w[e + "word_embeddings.weight"]), "ids")
    x = g.op("Add", g.op("Add", x, places), g.const(w[e + "token_type_embeddings.weight"][0]))
    x = norm(x, e + "LayerNorm")
    split, joined = g.const(np.array([0, 0, heads, dim // heads])), g.const(np.array([0, 0, dim]))
    for i in range(config["num_hidden_layers"]):
        p = "encoder.layer.%d." % i
        q, k, v = (g.op("Reshape", dense(x, p + "attention.self." + n), split) for n in ("query", "key", "value"))
        q, v = (g.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = g.op("Transpose", k, perm=[0, 2, 3, 1])
        scores = g.op("Mul", g.op("MatMul", q, k), g.const(np.float32((dim // heads) ** -0.5)))
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        x = norm(g.op("Add", dense(mixed, p + "attention.output.dense"), x), p + "attention.output.LayerNorm")
        h = dense(x, p + "intermediate.dense")
        half = g.op("Add", g.op("Erf", g.op("Div", h, g.const(np.float32(2 ** 0.5)))), g.const(np.float32(1)))
        h = g.op("Mul", g.op("Mul", h, half), g.const(np.float32(0.5)))
        x = norm(g.op("Add", dense(h, p + "output.dense"), x), p + "output.LayerNorm")
    x = g.op("ReduceMean", x, axes=[1], keepdims=0)
    g.nodes.append(helper.make_node("LpNormalization", [x], ["out"], axis=1, p=2))
    graph = helper.make_graph(g.nodes, "encoder", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
                              [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", dim])], g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(ours, folder):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    # Both share their cores with others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model(folder).SerializeToString(), options, ["CPUExecutionProvider"])
    word = [line.rstrip("\n") for line in open(folder + "/vocab.txt", encoding="utf-8")].index(WORD)
    print("| texts x tokens | ours, ms | ONNX Runtime, ms | ratio | furthest apart |")
    print("|---|---:|---:|---:|---:|")
    for n, length in SHAPES:
        ids = np.array([[101] + [word] * (length - 2) + [102]] * n, np.int64)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([" ".join([WORD] * (length - 2))] * n, file)
            file.flush()
            call = [ours, "embed", "-m", folder, "--json-file", file.name, "-t", str(THREADS)]
            mine = np.array(json.loads(subprocess.check_output(call)), np.float32)
            theirs = session.run(None, {"ids": ids})[0]
            us, them = [], []
            for _ in range(ROUNDS):
                us += json.loads(subprocess.check_output(call + ["-r", "20"]))["samples_s"]
                for _ in range(20):
                    start = time.perf_counter()
                    session.run(None, {"ids": ids})
                    them.append(time.perf_counter() - start)
        a, b = statistics.median(us), statistics.median(them)
        print("| %d x %d | %.2f | %.2f | %.2f | %.1e |" % (n, length, a * 1e3, b * 1e3, b / a, np.abs(mine - theirs).max()))
    print("onnxruntime %s, %d threads, medians of %d" % (onnxruntime.__version__, THREADS, 20 * ROUNDS))


if len(sys.argv) != 3:
    sys.exit(__doc__)
main(*sys.argv[1:])

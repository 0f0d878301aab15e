#!/usr/bin/env python3
"""Language models: adyton-bench and llama.cpp's library in turns, beside the machine's limits. Called by `scripts/bench llm`.

  bench-llm.py run OURS MODEL...     rounds, then a table on stdout
  bench-llm.py peer MODEL P N S T    one measurement of the peer, JSON on stdout (needs llama-cpp-python)
"""
import ctypes, json, os, random, resource, statistics, subprocess, sys, time

ROUNDS = int(os.environ.get("ROUNDS", "3"))
THREADS = int(os.environ.get("THREADS", "2"))
KERNELS = ["--kernels", os.environ["KERNELS"]] if os.environ.get("KERNELS") else []
PROMPT, GENERATE, SEQUENCES, ARRIVING = 512, 64, 16, 64


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peer(model, n_prompt, n_gen, n_seq, threads):
    """Prompt tokens a second, then generated tokens a second, through the C interface; other prompts each time."""
    import llama_cpp as L

    @L.llama_log_callback
    def quiet(level, text, data):
        pass
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    start = time.time()
    m = L.llama_model_load_from_file(model.encode(), L.llama_model_default_params())
    load_s = time.time() - start
    p = L.llama_context_default_params()
    p.n_ctx = max(1024, n_seq * (n_prompt + n_gen + 16))
    p.n_batch, p.n_ubatch, p.n_seq_max = 2048, 512, max(1, n_seq)
    p.n_threads = p.n_threads_batch = threads
    p.flash_attn_type = 1
    ctx = L.llama_init_from_model(m, p)
    vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(m))
    memory = L.llama_get_memory(ctx)

    def decode(n, place, all_logits):
        batch = L.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        for i in range(n):
            seq, pos = place(i)
            batch.token[i], batch.pos[i] = random.randrange(vocab), pos
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, seq
            batch.logits[i] = 1 if all_logits or i == n - 1 else 0
        if L.llama_decode(ctx, batch) != 0:
            sys.exit("the peer could not decode")
        L.llama_batch_free(batch)

    def timed(tokens, work):
        L.llama_memory_clear(memory, True)
        start, used = time.time(), cpu_s()
        work()
        L.llama_synchronize(ctx)
        return {"ts": tokens / (time.time() - start), "per_cpu_s": tokens / max(cpu_s() - used, 0.01)}

    out = {"load_s": load_s}
    if n_prompt:
        run = lambda: decode(n_prompt * n_seq, lambda i: divmod(i, n_prompt), False)
        timed(n_prompt * n_seq, run)
        out["prompt"] = timed(n_prompt * n_seq, run)
    if n_gen:
        run = lambda n: [decode(n_seq, lambda i: (i, step), True) for step in range(n)]
        timed(n_seq, lambda: run(4))
        out["generate"] = timed(n_gen * n_seq, lambda: run(n_gen))
    out["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return out


def ours_arrive(program, model, n_prompt, n_seq, threads):
    args = [program, "arrive", "-m", model, "-p", n_prompt, "-n", 4, "-s", n_seq, "-t", threads, "-r", 1] + KERNELS
    return json.loads(subprocess.check_output([str(arg) for arg in args]))


def ours(program, model, n_prompt, n_gen, n_seq, threads, more=[]):
    args = [program, "speed", "-m", model, "-p", n_prompt, "-n", n_gen, "-s", n_seq, "-t", threads, "-r", 1] + KERNELS + more
    answers = json.loads(subprocess.check_output([str(arg) for arg in args]))
    out = {"load_s": answers[0]["load_s"], "peak_rss_bytes": max(a["peak_rss_bytes"] for a in answers)}
    for a in answers:
        key = "generate" if a["n_gen"] else "prompt"
        out[key] = {"ts": a["samples_ts"][0], "per_cpu_s": a["samples_per_cpu_s"][0]}
    out["kernels"], out["screened"] = answers[0]["kernels"], answers[0]["screened"]
    return out


def median(runs, *path):
    def value(run):
        for key in path:
            run = run[key]
        return run
    return statistics.median(value(run) for run in runs)


def main(program, models):
    print("| model | test | ours tok/s | peer tok/s | ratio | ours per CPU s | peer per CPU s | ratio | of the limit |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for model in models:
        runs = {"limits": []}
        tests = [("single", PROMPT, GENERATE, 1), ("batch", 0, GENERATE // 2, SEQUENCES)]
        for turn in range(ROUNDS):
            print("%s, round %d of %d" % (os.path.basename(model), turn + 1, ROUNDS), file=sys.stderr)
            limits = [program, "limits", "-t", str(THREADS), "-r", "2"] + KERNELS
            runs["limits"].append(json.loads(subprocess.check_output(limits)))
            for test, *shape in tests:
                runs.setdefault(("us", test), []).append(ours(program, model, *shape, THREADS))
                call = [sys.executable, __file__, "peer", model, *map(str, shape), str(THREADS)]
                runs.setdefault(("peer", test), []).append(json.loads(subprocess.check_output(call)))
                if runs["us", test][-1]["screened"]:
                    run = ours(program, model, 0, *shape[1:], THREADS, ["--greedy"])
                    runs.setdefault(("us greedy", test), []).append(run)
            runs.setdefault("us arrive", []).append(ours_arrive(program, model, ARRIVING, SEQUENCES, THREADS))
            call = [sys.executable, __file__, "peer", model, str(ARRIVING), "0", str(SEQUENCES), str(THREADS)]
            answer = json.loads(subprocess.check_output(call))
            waited = SEQUENCES * ARRIVING / answer["prompt"]["ts"]
            runs.setdefault("peer arrive", []).append({"first_token_p95_s": waited})
        size = os.path.getsize(model)
        bound = median(runs["limits"], "read_gb_s") * 1e9 / size
        rows = [("prompt of %d" % PROMPT, "us", "single", "prompt", None), ("generate", "us", "single", "generate", bound),
                ("generate, %d sequences" % SEQUENCES, "us", "batch", "generate", None)]
        # The peer has no such way: its figure is that of all logits.
        rows += [("%s, largest logit only" % name, "us greedy", test, key, None)
                 for name, _, test, key, _ in rows[1:] if ("us greedy", test) in runs]
        for name, who, test, key, limit in rows:
            us, them = runs[who, test], runs["peer", test]
            a, b = median(us, key, "ts"), median(them, key, "ts")
            c, d = median(us, key, "per_cpu_s"), median(them, key, "per_cpu_s")
            share = "%d %%" % (100 * a / limit) if limit else ""
            print("| %s | %s | %.1f | %.1f | %.2f | %.1f | %.1f | %.2f | %s |"
                  % (os.path.basename(model), name, a, b, a / b, c, d, c / d, share))
        # The peer's is the least that a server on it can take: its prompts computed as one batch.
        a, b = (median(runs[who + " arrive"], "first_token_p95_s") for who in ("us", "peer"))
        print("| %s | %d prompts of %d at once, first token p95, s | %.2f | %.2f | %.2f | | | | |"
              % (os.path.basename(model), SEQUENCES, ARRIVING, a, b, b / a))
        us, them = runs["us", "single"], runs["peer", "single"]
        print("| %s | load, s / peak memory over file | %.2f / %.2f | %.2f / %.2f | | | | | |"
              % (os.path.basename(model), median(us, "load_s"), median(us, "peak_rss_bytes") / size,
                 median(them, "load_s"), median(them, "peak_rss_bytes") / size))
        last = runs["limits"][-1]
        print("| | limits (%s): %.1f GB/s, %.0f GFLOP/s f32, %.0f GOP/s int8 | | | | | | | |"
              % (last["kernels"], *(median(runs["limits"], k) for k in ("read_gb_s", "f32_gflop_s", "int8_gop_s"))))


if __name__ == "__main__":
    if len(sys.argv) == 7 and sys.argv[1] == "peer":
        print(json.dumps(peer(sys.argv[2], *map(int, sys.argv[3:]))))
    elif len(sys.argv) >= 4 and sys.argv[1] == "run":
        main(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(__doc__)

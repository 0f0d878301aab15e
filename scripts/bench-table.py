"""Turns `TOOL VERB SECONDS PEAK_RSS_KIB` lines on stdin into the table of `scripts/bench seal`.

usage: bench-table.py PLAIN     PLAIN is the file that was sealed, for its size
"""

import os
import statistics
import sys


def main():
    size = os.path.getsize(sys.argv[1])
    seconds, peak_mib = {}, {}
    for line in sys.stdin:
        tool, verb, wall, rss = line.split()
        seconds.setdefault((tool, verb), []).append(float(wall))
        peak_mib.setdefault((tool, verb), []).append(float(rss) / 1024)
    speed = {key: size / statistics.median(walls) / 1e6 for key, walls in seconds.items()}
    size_mib = size / 2**20

    print(f"file: {size_mib:.0f} MiB; medians of {len(seconds['adyton', 'seal'])} rounds, peak memory the largest")
    print(f"{'tool':8} {'seal MB/s':>10} {'open MB/s':>10} {'seal peak MiB':>15} {'open peak MiB':>15}")
    for tool in ("adyton", "fernet"):
        peaks = [max(peak_mib[tool, verb]) for verb in ("seal", "open")]
        shown = [f"{peak:.0f} ({peak / size_mib:.2f}x)" for peak in peaks]
        print(f"{tool:8} {speed[tool, 'seal']:10.0f} {speed[tool, 'open']:10.0f} {shown[0]:>15} {shown[1]:>15}")
    ratios = [speed["adyton", verb] / speed["fernet", verb] for verb in ("seal", "open")]
    print(f"{'ratio':8} {ratios[0]:9.1f}x {ratios[1]:9.1f}x")
    for key, walls in seconds.items():
        print(f"seconds, {' '.join(key)}: {' '.join(f'{wall:.2f}' for wall in walls)}")


main()

"""Inspect what the camera sees, in ten lines.

python examples/station_ten_lines.py station.yaml
"""

import sys

from edge_sdk import Station, Verdict

with Station.open(sys.argv[1]) as station:
    for inspection in station:
        reject = inspection.verdict is not Verdict.PASSED
        print(inspection.frame.index, "reject" if reject else "pass", inspection.reason)

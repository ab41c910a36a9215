"""From OCPP messages to Wattgate, as a charging station management system would send them.

    python3 integrations/ocpp.py <integrations/ocpp-messages.ndjson

reads a message a line, `{"station","action","payload","answer"}`, as 1.6 (StartTransaction, MeterValues,
StopTransaction) or 2.0.1 (TransactionEvent, MeterValues) has it, and sends what it means. What is mapped to
what, and why, stands in README.md beside this file.
"""

import json
import sys

from wattgate import connect

ENERGY = {
    "Energy.Active.Import.Register": "register",
    "Energy.Active.Import.Interval": "interval",
}
# A meter that reports no voltage gets the nominal one. Wattgate requires a voltage, but computes nothing from it.
NOMINAL_VOLTS = 230.0


def value_of(sample):
    """A sample's number in kWh, V or %. It is a text in 1.6, and a number with a multiplier in 2.0.1."""
    unit = sample.get("unitOfMeasure", {})
    number = float(sample["value"]) * 10 ** unit.get("multiplier", 0)
    energy = sample.get("measurand", "Energy.Active.Import.Register").startswith("Energy.")
    named = sample.get("unit") or unit.get("unit") or ("Wh" if energy else "")
    # Sends the decimal number that the meter shows: 12345 Wh are 12.345 kWh.
    return round(number / 1000, 6) if named == "Wh" else number


def meter_readings(meter, values):
    """The readings of one connector's meter, each with the voltage at that moment."""
    for value in values:
        samples = value["sampledValue"]
        # Voltages between a phase and neutral, not between phases.
        volts = [value_of(s) for s in samples if s.get("measurand") == "Voltage" and len(s.get("phase", "")) != 5]
        energies = [s for s in samples if s.get("measurand", "Energy.Active.Import.Register") in ENERGY]
        # The sum of the phases, not one of them.
        energies = [s for s in energies if "phase" not in s]
        # A DC station measures on both sides: the inlet is the grid's, the outlet the vehicle's.
        inlet = [s for s in energies if s.get("location") == "Inlet"]
        for sample in (inlet or [s for s in energies if s.get("location", "Outlet") == "Outlet"])[:1]:
            yield {
                "meterId": meter,
                "kwhConsumedAc": value_of(sample),
                "energyKind": ENERGY[sample.get("measurand", "Energy.Active.Import.Register")],
                "voltage": round(sum(volts) / len(volts), 1) if volts else NOMINAL_VOLTS,
                "timestamp": value["timestamp"],
            }


def transaction(message):
    """(session, vehicle, meter, begins at, ends at, meter values) of a message."""
    station, action, body = message["station"], message["action"], message["payload"]
    if action == "TransactionEvent":
        session = f"{station}-{body['transactionInfo']['transactionId']}"
        meter = f"{station}-{body['evse']['id']}" if "evse" in body else None
        vehicle = body.get("idToken", {}).get("idToken")
        begins = body["timestamp"] if body["eventType"] == "Started" else None
        ends = body["timestamp"] if body["eventType"] == "Ended" else None
        return session, vehicle, meter, begins, ends, body.get("meterValue", [])
    if action == "StartTransaction":
        session = f"{station}-{message['answer']['transactionId']}"
        first = {"timestamp": body["timestamp"], "sampledValue": [{"value": str(body["meterStart"])}]}
        return session, body["idTag"], f"{station}-{body['connectorId']}", body["timestamp"], None, [first]
    if action == "StopTransaction":
        last = {"timestamp": body["timestamp"], "sampledValue": [{"value": str(body["meterStop"])}]}
        return f"{station}-{body['transactionId']}", None, None, None, body["timestamp"], [last]
    connector = body.get("connectorId", body.get("evseId"))
    return None, None, f"{station}-{connector}", None, None, body["meterValue"]


def main():
    gateway = connect()
    meters = {}
    for line in sys.stdin:
        session, vehicle, meter, begins, ends, values = transaction(json.loads(line))
        # The end of a transaction does not name its connector.
        meter = meter or meters[session]
        if session:
            meters[session] = meter
        if begins:
            gateway.start_session(session, vehicle, meter, begins)
        # The result at the end needs all readings. A device's readings are stored in order.
        ack = "committed" if ends else "durable"
        for reading, why in gateway.send("meter", list(meter_readings(meter, values)), ack):
            print(f"refused: {why}: {reading}", file=sys.stderr)
        if ends:
            print(json.dumps(gateway.end_session(session, ends), separators=(",", ":")))


if __name__ == "__main__":
    main()

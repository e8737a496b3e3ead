// A visit with `ocpp-rpc` (github.com/mikuso/ocpp-rpc), whose strict mode holds every answer to OCPP's schemas.
// node ocpp_rpc.mjs ENDPOINT IDENTITY VERSION CARD, the password in STATION_PASSWORD; prints what was said as JSON.
import { RPCClient } from "ocpp-rpc";

const [endpoint, identity, version, card] = process.argv.slice(2);
const client = new RPCClient({
  endpoint, identity, protocols: [version], strictMode: version !== "ocpp2.1", // it has no schemas of 2.1
  password: process.env.STATION_PASSWORD,
  callTimeoutMs: 20000, reconnect: false,
});
const record = [];
const say = async (action, payload) => {
  const answer = await client.call(action, payload);
  record.push({ action, payload, answer });
  return answer;
};
const now = () => new Date().toISOString();
const wh = (value, context) => ({ value, context, measurand: "Energy.Active.Import.Register" });

async function visit16() {
  await say("BootNotification", { chargePointVendor: "Nordwerk", chargePointModel: "RPC 11" });
  await say("StatusNotification", { connectorId: 1, errorCode: "NoError", status: "Preparing", timestamp: now() });
  await say("Authorize", { idTag: card });
  const { transactionId } = await say("StartTransaction", {
    connectorId: 1, idTag: card, meterStart: 1000, timestamp: now(),
  });
  await say("MeterValues", {
    connectorId: 1, transactionId,
    meterValue: [{ timestamp: now(), sampledValue: [{ ...wh("1120", "Sample.Periodic"), unit: "Wh" }] }],
  });
  await say("StopTransaction", { transactionId, idTag: card, meterStop: 1150, timestamp: now(), reason: "Local" });
  await say("StatusNotification", { connectorId: 1, errorCode: "NoError", status: "Available", timestamp: now() });
  await say("Heartbeat", {});
}

async function visit2x() {
  const idToken = { idToken: card, type: "ISO14443" };
  const transactionId = "rpc-1";
  let seqNo = 0;
  const event = (eventType, triggerReason, value, context, more = {}, info = {}) =>
    say("TransactionEvent", {
      eventType, triggerReason, timestamp: now(), seqNo: seqNo++, evse: { id: 1, connectorId: 1 },
      transactionInfo: { transactionId, ...info },
      meterValue: [{ timestamp: now(), sampledValue: [wh(value, context)] }], ...more,
    });
  const status = (connectorStatus) =>
    say("StatusNotification", { timestamp: now(), connectorStatus, evseId: 1, connectorId: 1 });
  await say("BootNotification", { reason: "PowerUp", chargingStation: { vendorName: "Nordwerk", model: "RPC 22" } });
  await status("Occupied");
  await say("Authorize", { idToken });
  await event("Started", "Authorized", 1000, "Transaction.Begin", { idToken }, { chargingState: "Charging" });
  await event("Updated", "MeterValuePeriodic", 1120, "Sample.Periodic");
  await event("Ended", "StopAuthorized", 1150, "Transaction.End", { idToken }, { stoppedReason: "Local" });
  await status("Available");
  await say("Heartbeat", {});
}

await client.connect();
await (client.protocol === "ocpp1.6" ? visit16() : visit2x());
await client.close();
console.log(JSON.stringify({ version: client.protocol ?? version, record }));

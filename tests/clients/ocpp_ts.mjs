// A visit with `ocpp-ts`, OCPP 1.6. node ocpp_ts.mjs ENDPOINT IDENTITY VERSION CARD, as its neighbour.
import ocpp from "ocpp-ts";

const [endpoint, identity, version, card] = process.argv.slice(2);
const client = new ocpp.OcppClient(identity);
const record = [];
const say = async (action, payload) => {
  const answer = await client.callRequest(action, payload);
  record.push({ action, payload, answer });
  return answer;
};
const now = () => new Date().toISOString();
const status = (word) =>
  say("StatusNotification", { connectorId: 1, errorCode: "NoError", status: word, timestamp: now() });

async function visit() {
  await say("BootNotification", { chargePointVendor: "Typwerk", chargePointModel: "TS 11" });
  await status("Preparing");
  await say("Authorize", { idTag: card });
  const { transactionId } = await say("StartTransaction", {
    connectorId: 1, idTag: card, meterStart: 1000, timestamp: now(),
  });
  const sampledValue = [{ value: "1120", measurand: "Energy.Active.Import.Register", unit: "Wh" }];
  await say("MeterValues", { connectorId: 1, transactionId, meterValue: [{ timestamp: now(), sampledValue }] });
  await say("StopTransaction", { transactionId, idTag: card, meterStop: 1150, timestamp: now(), reason: "Local" });
  await status("Available");
  await say("Heartbeat", {});
}

client.on("error", (error) => { console.error(error); process.exit(1); });
client.on("connect", async () => {
  try {
    await visit();
    console.log(JSON.stringify({ version, record }));
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
});
const basic = Buffer.from(`${identity}:${process.env.STATION_PASSWORD}`).toString("base64");
client.connect(`${endpoint}/`, { Authorization: `Basic ${basic}` });

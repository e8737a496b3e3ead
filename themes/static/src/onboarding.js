// The provider's own pages within ours (docs.stripe.com/connect). Where they do not come, the button below leads to them.
const place = document.getElementById("onboarding");
const { key, leave } = place.dataset;
const fail = () => { place.remove(); document.getElementById("not-embedded").hidden = false; };

async function fetchClientSecret() {
  const token = document.querySelector('meta[name="csrf-token"]').content;
  const answer = await fetch("/payment-account/onboarding/sessions", { method: "POST", headers: { "X-CSRFToken": token } });
  if (answer.ok) return (await answer.json()).client_secret;
  fail();
  throw new Error(`no account session: ${answer.status}`);
}

window.StripeConnect = {
  onLoad() {
    const connect = window.StripeConnect.init({ publishableKey: key, fetchClientSecret });
    const parts = ["notification-banner", "account-onboarding"].map((name) => connect.create(name));
    for (const part of parts) part.setOnLoadError?.(fail);
    parts[1].setOnExit(() => location.assign(leave));
    place.replaceChildren(...parts);
  },
};
const script = document.createElement("script");
script.src = "https://connect-js.stripe.com/v1.0/connect.js";
script.onerror = fail;
document.head.append(script);

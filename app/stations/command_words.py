"""Every command a CSMS may send, in plain words: what it is called, what it does, what its fields ask (data only).

The fields themselves come from OCPP's schemas (`schema_forms.py`); a name that is not here is spelled out.
"""

from dataclasses import dataclass

SUBJECTS = (
    "Charging", "Availability", "Setup", "Monitoring", "Reservations and limits", "Cards", "Display",
    "Firmware and logs", "Security", "Other",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    effect: str
    subject: str
    is_grave: bool = False


ACTIONS: dict[str, Words] = {
    "CancelReservation": Words(
        "Cancel a reservation", "The place is free for everybody again.", "Reservations and limits"
    ),
    "CertificateSigned": Words(
        "Hand over a signed certificate", "The station uses it from its next connection on.", "Security", True
    ),
    "ChangeAvailability": Words(
        "Take out of service or back",
        "No new sessions while out of service; a running one ends first.",
        "Availability",
        True,
    ),
    "ChangeConfiguration": Words(
        "Change a key", "Sets one configuration key; the station says whether it takes it.", "Setup", True
    ),
    "ClearCache": Words(
        "Forget known cards", "Empties the list of cards the station remembers by itself.", "Cards"
    ),
    "ClearChargingProfile": Words(
        "Lift limits",
        "Removes charging profiles; without any choice all of them.",
        "Reservations and limits",
        True,
    ),
    "ClearDisplayMessage": Words(
        "Take a message off the display", "The station stops showing it.", "Display"
    ),
    "ClearVariableMonitoring": Words(
        "Remove monitors", "The station stops watching these variables.", "Monitoring"
    ),
    "CostUpdated": Words(
        "Tell the cost so far", "The station shows it to the driver of a running session.", "Charging"
    ),
    "CustomerInformation": Words(
        "What it stores of a customer", "Reports it, clears it, or both.", "Cards", True
    ),
    "DataTransfer": Words("Vendor's own message", "Whatever the vendor's manual says.", "Other"),
    "DeleteCertificate": Words("Delete a certificate", "The station trusts it no longer.", "Security", True),
    "ExtendedTriggerMessage": Words(
        "Ask for a message (security)", "The station sends it at once, security messages too.", "Availability"
    ),
    "GetBaseReport": Words(
        "Report everything", "The station tells its whole inventory, or a part of it.", "Setup"
    ),
    "GetChargingProfiles": Words(
        "Which limits are there", "The station reports its charging profiles.", "Reservations and limits"
    ),
    "GetCompositeSchedule": Words(
        "Which limit is in force",
        "The station works out the limit of the coming time.",
        "Reservations and limits",
    ),
    "GetConfiguration": Words(
        "Read keys", "The station tells how it is configured; without any key all of it.", "Setup"
    ),
    "GetDiagnostics": Words(
        "Fetch diagnostics", "The station uploads its log to this address.", "Firmware and logs"
    ),
    "GetDisplayMessages": Words(
        "What is on the display",
        "The station reports its messages; without any choice all of them.",
        "Display",
    ),
    "GetInstalledCertificateIds": Words(
        "Which certificates are there", "The station lists what it trusts.", "Security"
    ),
    "GetLocalListVersion": Words(
        "Version of the local list", "The station tells which list of cards it holds.", "Cards"
    ),
    "GetLog": Words("Fetch a log", "The station uploads it to this address.", "Firmware and logs"),
    "GetMonitoringReport": Words(
        "Which monitors are there",
        "The station reports what it watches; without any choice all of it.",
        "Monitoring",
    ),
    "GetReport": Words(
        "Report some components", "The station tells about these components and variables.", "Setup"
    ),
    "GetTransactionStatus": Words(
        "Does it still hold reports",
        "Whether messages of a session, or of any, still wait to be sent.",
        "Charging",
    ),
    "GetVariables": Words("Read variables", "The station tells their values.", "Setup"),
    "InstallCertificate": Words(
        "Install a root certificate", "The station trusts it from now on.", "Security", True
    ),
    "PublishFirmware": Words(
        "Publish firmware in its network",
        "A local controller offers this firmware to its stations.",
        "Firmware and logs",
        True,
    ),
    "RemoteStartTransaction": Words(
        "Start a session", "As if this card had been held to the station.", "Charging"
    ),
    "RemoteStopTransaction": Words(
        "Stop a session", "The session ends; the cable can be taken.", "Charging", True
    ),
    "RequestStartTransaction": Words(
        "Start a session", "As if this card had been held to the station.", "Charging"
    ),
    "RequestStopTransaction": Words(
        "Stop a session", "The session ends; the cable can be taken.", "Charging", True
    ),
    "ReserveNow": Words(
        "Reserve", "Until it ends only this card may charge there.", "Reservations and limits"
    ),
    "Reset": Words(
        "Restart", "Restarts the station, or an EVSE of it. Running sessions end.", "Availability", True
    ),
    "SendLocalList": Words(
        "Send the local list", "Cards the station accepts by itself, also while offline.", "Cards", True
    ),
    "SetChargingProfile": Words(
        "Set a limit", "Limits power or current, now or by a plan.", "Reservations and limits", True
    ),
    "SetDisplayMessage": Words("Show a message", "The station shows it on its display.", "Display"),
    "SetMonitoringBase": Words(
        "What is watched at all",
        "Everything, as it left the factory, or only what is hard-wired.",
        "Monitoring",
        True,
    ),
    "SetMonitoringLevel": Words(
        "How grave before it tells", "Only events as severe as this, or more, are reported.", "Monitoring"
    ),
    "SetNetworkProfile": Words(
        "Another way to the CSMS",
        "Fills a slot with address and network; it is used once it is chosen in the station's priority list.",
        "Security",
        True,
    ),
    "SetVariableMonitoring": Words(
        "Watch variables",
        "The station reports when they cross a limit, change, or by the clock.",
        "Monitoring",
    ),
    "SetVariables": Words("Change variables", "Sets them; the station answers for each.", "Setup", True),
    "SignedUpdateFirmware": Words(
        "Install signed firmware",
        "The station checks the signature, downloads and installs it.",
        "Firmware and logs",
        True,
    ),
    "TriggerMessage": Words("Ask for a message", "The station sends it at once.", "Availability"),
    "UnlockConnector": Words(
        "Unlock the cable", "Opens the lock of a connector; ends its session.", "Availability", True
    ),
    "UnpublishFirmware": Words(
        "Take published firmware back", "The local controller offers it no longer.", "Firmware and logs"
    ),
    "UpdateFirmware": Words(
        "Install firmware", "The station downloads and installs it, and restarts.", "Firmware and logs", True
    ),
}

# What only one version has: the reason, and what to use instead.
NOT_IN_16: dict[str, str] = {
    "ClearDisplayMessage": "OCPP 1.6 knows no messages on a display.",
    "ClearVariableMonitoring": "OCPP 1.6 has no monitors; the station reports faults by itself.",
    "CostUpdated": "OCPP 1.6 cannot tell a station what a session costs.",
    "CustomerInformation": "OCPP 1.6 cannot ask a station what it stores of a customer.",
    "GetBaseReport": "OCPP 1.6 has keys instead of an inventory: read keys.",
    "GetChargingProfiles": "OCPP 1.6 does not report single profiles: ask which limit is in force.",
    "GetDisplayMessages": "OCPP 1.6 knows no messages on a display.",
    "GetMonitoringReport": "OCPP 1.6 has no monitors; the station reports faults by itself.",
    "GetReport": "OCPP 1.6 has keys instead of components: read keys.",
    "GetTransactionStatus": "OCPP 1.6 does not tell what still waits to be sent.",
    "GetVariables": "OCPP 1.6 has keys instead of variables: read keys.",
    "PublishFirmware": "OCPP 1.6 has no local controllers that offer firmware.",
    "RequestStartTransaction": "OCPP 1.6 calls it RemoteStartTransaction.",
    "RequestStopTransaction": "OCPP 1.6 calls it RemoteStopTransaction.",
    "SetDisplayMessage": "OCPP 1.6 knows no messages on a display.",
    "SetMonitoringBase": "OCPP 1.6 has no monitors; the station reports faults by itself.",
    "SetMonitoringLevel": "OCPP 1.6 has no monitors; the station reports faults by itself.",
    "SetNetworkProfile": "OCPP 1.6 has no network profiles; the address is set at the station.",
    "SetVariableMonitoring": "OCPP 1.6 has no monitors; the station reports faults by itself.",
    "SetVariables": "OCPP 1.6 has keys instead of variables: change a key.",
    "UnpublishFirmware": "OCPP 1.6 has no local controllers that offer firmware.",
}
NOT_IN_2X: dict[str, str] = {
    "ChangeConfiguration": "OCPP 2.0.1 has variables instead of keys: change variables.",
    "ExtendedTriggerMessage": "OCPP 2.0.1 has them all in TriggerMessage.",
    "GetConfiguration": "OCPP 2.0.1 has variables instead of keys: read variables.",
    "GetDiagnostics": "OCPP 2.0.1 calls it GetLog.",
    "RemoteStartTransaction": "OCPP 2.0.1 calls it RequestStartTransaction.",
    "RemoteStopTransaction": "OCPP 2.0.1 calls it RequestStopTransaction.",
    "SignedUpdateFirmware": "OCPP 2.0.1 has signatures in UpdateFirmware.",
}

# Property -> (label, hint). Where the spelled-out name says it well enough, there is no entry.
FIELDS: dict[str, tuple[str, str]] = {
    "additionalInfo": ("Further identifiers", ""),
    "attributeType": ("Attribute", "Actual where nothing is chosen"),
    "attributeValue": ("Value", ""),
    "certificateChain": ("Certificate chain, PEM", ""),
    "certificate": ("Certificate, PEM", ""),
    "certificateHashData": ("Certificate", "its hashes, as the station lists them"),
    "chargingProfileId": ("Number of the profile", ""),
    "chargingProfilePurpose": ("Purpose", ""),
    "chargingProfileKind": ("Kind", ""),
    "chargingRateUnit": ("Unit", "A ampere, W watt"),
    "chargingSchedule": ("Plan", ""),
    "chargingSchedulePeriod": ("Step", ""),
    "clear": ("Clear it", ""),
    "componentCriteria": ("Components that are", ""),
    "componentVariable": ("Component and variable", ""),
    "configurationSlot": ("Slot", "which place in the station is filled"),
    "connectionData": ("Connection", ""),
    "connectorId": ("Connector", "0 is the whole station, where that makes sense"),
    "content": ("Text", ""),
    "csChargingProfiles": ("Charging profile", ""),
    "display": ("Which display", "where the station has several"),
    "duration": ("Duration, seconds", ""),
    "evse": ("Where", ""),
    "evseId": ("EVSE", "0 is the whole station, where that makes sense"),
    "getVariableData": ("Variable", ""),
    "setVariableData": ("Variable", ""),
    "setMonitoringData": ("Monitor", ""),
    "id": ("Number", ""),
    "idTag": ("Card", ""),
    "idToken": ("Card", ""),
    "groupIdToken": ("Group of cards", ""),
    "parentIdTag": ("Group", ""),
    "installDateTime": ("Install at", ""),
    "retrieveDateTime": ("Download at", ""),
    "retrieveDate": ("Download at", ""),
    "key": ("Key", ""),
    "language": ("Language", "such as de or en"),
    "limit": ("Limit", "in the unit of the plan"),
    "listVersion": ("Version", "larger than the last one"),
    "versionNumber": ("Version", "larger than the last one"),
    "localAuthorizationList": ("Card", ""),
    "location": ("Address", "where the station uploads to or downloads from"),
    "remoteLocation": ("Address", "where the station uploads to"),
    "messageTimeout": ("Time for an answer, seconds", ""),
    "minChargingRate": ("Least that makes sense", ""),
    "monitoringBase": ("Watch", ""),
    "monitoringCriteria": ("Monitors of", ""),
    "newSignature": ("New signature", ""),
    "numberPhases": ("Phases", ""),
    "ocppCsmsUrl": ("Address of the CSMS", "wss://…"),
    "ocppInterface": ("Network interface", ""),
    "ocppVersion": ("OCPP version", ""),
    "ocppTransport": ("Transport", ""),
    "operationalStatus": ("State", ""),
    "phaseToUse": ("Which phase", ""),
    "recurrencyKind": ("Repeats", ""),
    "report": ("Report it", ""),
    "reportBase": ("Which", ""),
    "requestedMessage": ("Message", ""),
    "reservationId": ("Number of the reservation", ""),
    "retries": ("Tries", ""),
    "retryInterval": ("Seconds between tries", ""),
    "severity": ("Severity", "0 danger to 9 debug"),
    "stackLevel": ("Level", "the higher one wins"),
    "startPeriod": ("Begins after, seconds", ""),
    "totalCost": ("Cost so far", ""),
    "transaction": ("Only in sessions", ""),
    "transactionId": ("Session's number on the wire", ""),
    "updateType": ("How", "full replaces the list, differential changes it"),
    "value": ("Value", ""),
    "vendorId": ("Vendor", "such as com.example"),
    "messageId": ("Message", ""),
}

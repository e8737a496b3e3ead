"""The conformance cases of a CSMS, by version and block: the names are the alliance's, the words our own.

A line is a name without its `_CSMS`, and what the CSMS must cope with.
"""

from dataclasses import dataclass

_CASES_16 = """
# Core
TC_001 A station boots
TC_003 A visit that begins with the cable
TC_004_1 A visit that begins with the card
TC_004_2 A card, and no cable in time
TC_005_1 The cable is pulled at the car: the transaction stops, the connector unlocks
TC_007 A start with a card from the station's cache
TC_010 Remote start, cable first
TC_011_1 Remote start, cable after it
TC_011_2 Remote start, and no cable in time
TC_012 Remote stop
TC_013 Hard reset
TC_014 Soft reset
TC_017_1 Unlocking an idle connector with a socket
TC_017_2 Unlocking an idle connector with a fixed cable: not supported
TC_018_1 Unlocking a connector that charges
TC_019_1 All configuration keys are read
TC_019_2 One configuration key is read
TC_021 A configuration key is set
TC_023_1 Authorize: an unknown card
TC_023_2 Authorize: an expired card
TC_023_3 Authorize: a blocked card
TC_024 A lock that fails at the start
TC_026 A remote start is refused
TC_028 A remote stop is refused
TC_030 Unlocking fails
TC_031 Unlocking a connector that is not there
TC_032_1 Power fails: transactions are stopped at the next boot
TC_037_1 A start while offline, good card
TC_037_3 A start while offline, refused card
TC_039 A whole transaction while offline
TC_040_1 A configuration key is not supported
TC_040_2 A configuration key takes no such value
TC_061 The authorization cache is cleared
TC_064 Vendor messages to us are refused
# Local authorization list
TC_042_1 List version: not supported
TC_042_2 List version: empty
TC_043_1 Sending a list: not supported
TC_043_3 Sending a list: failed
TC_043_4 Sending a full list
TC_043_5 Sending a list of differences
# Firmware
TC_044_1 Firmware is downloaded and installed
TC_044_2 Firmware: the download fails
TC_044_3 Firmware: the installation fails
TC_045_1 Diagnostics are uploaded
TC_045_2 Diagnostics: the upload fails
# Reservation
TC_046 A connector is reserved and used
TC_047 A reservation expires
TC_048_1 Reserving a faulted connector
TC_048_2 Reserving an occupied connector
TC_048_3 Reserving an unavailable connector
TC_048_4 Reserving is refused
TC_049 A whole station is reserved and used
TC_051 A reservation is cancelled
TC_052 Cancelling is refused
TC_053 A reservation is used by another card of the group
# Remote trigger
TC_054 A message is triggered
TC_055 A trigger is refused
# Smart charging
TC_056 A default profile for new transactions
TC_057 A profile for a running transaction
TC_059 A remote start with a profile
TC_066 The composite schedule is read
TC_067 A profile is cleared
# Security
TC_073 A new password is set
TC_074 The station's certificate is renewed when we ask
TC_075_1 A manufacturer's root certificate is installed
TC_075_2 The central system's root certificate is installed
TC_076 An installed certificate is deleted
TC_077 Security event: the station's certificate is invalid
TC_078 Security event: our certificate is invalid
TC_079 The security log is uploaded
TC_080 Signed firmware is installed
TC_081 Signed firmware: the signature is wrong
TC_083 The security profile is raised
TC_085 A good name and password open the link
TC_086 TLS with our certificate
TC_087 TLS with a certificate of the station's own
TC_088 A known version is chosen among those offered
"""

_CASES_201 = """
# A: Security
TC_A_01 A good name and password open the link
TC_A_02 The name is not the identity
TC_A_03 A wrong password
TC_A_04 TLS with our certificate
TC_A_06 A TLS version that is too old
TC_A_07 TLS with a certificate of the station's own
TC_A_08 A station's certificate that is no good
TC_A_09 A new password is taken
TC_A_10 A new password is refused: the old one stays good
TC_A_11 The station's certificate is renewed when we ask
TC_A_12 The V2G certificate is renewed
TC_A_13 One certificate for both is renewed
TC_A_14 The station refuses its new certificate
TC_A_19 The security profile is raised
# B: Provisioning
TC_B_01 A station boots: accepted
TC_B_02 A station boots: pending
TC_B_06 One variable is read
TC_B_07 Several variables are read
TC_B_08 No more variables are asked for than the station takes
TC_B_09 One variable is set
TC_B_10 Several variables are set
TC_B_12 Base report: configuration
TC_B_13 Base report: everything
TC_B_14 Base report: summary
TC_B_18 A report by criteria and variables, also an empty one
TC_B_20 Reset on idle, station idle
TC_B_21 Reset on idle, station busy
TC_B_22 Immediate reset, station busy
TC_B_25 Reset of an EVSE that is idle
TC_B_26 Reset on idle of an EVSE that is busy
TC_B_27 Immediate reset of an EVSE that is busy
TC_B_30 Not accepted yet: other messages are security errors
TC_B_31 Not accepted yet: a boot is triggered
TC_B_42 A network profile is set
TC_B_44 A network profile: failed
TC_B_58 A known version is chosen among those offered
# C: Authorization
TC_C_02 An unknown token
TC_C_06 A blocked token
TC_C_07 An expired token
TC_C_08 A good token from the station's cache
TC_C_20 A token in the station's cache that is good no more
TC_C_37 The cache is cleared
TC_C_38 Clearing the cache is refused
TC_C_39 Another token of the group ends the transaction
TC_C_40 The group, by the local list
TC_C_43 The group, by the local list, one of them invalid
TC_C_47 A master pass ends all transactions, chosen on a screen
TC_C_48 A master pass ends one transaction, chosen on a screen
TC_C_49 A master pass without a screen
TC_C_50 Contract certificate, checked by the station: accepted
TC_C_51 Contract certificate, checked by the station: refused
TC_C_52 Contract certificate, checked by us
# D: Local authorization list
TC_D_01 A full list is sent
TC_D_02 Differences: entries are added
TC_D_03 Differences: entries are removed
TC_D_04 A full list of nothing
TC_D_08 The version of the list
TC_D_09 The version where there is no list
# E: Transactions
TC_E_01 Starts when the power path closes
TC_E_02 Starts when energy flows
TC_E_03 Cable first
TC_E_04 Card first
TC_E_07 Stops when the power path opens, at the station
TC_E_08 Stops when energy stops, authorised
TC_E_09 Starts with the cable
TC_E_10 Starts with the authorisation
TC_E_11 Starts when data is signed
TC_E_12 Starts when the parking bay is taken
TC_E_14 Stops when the cable is pulled at the station
TC_E_15 Stops when the driver says so at the station
TC_E_16 Deauthorised: a token that is invalid
TC_E_17 Deauthorised: the car is lost
TC_E_19 Stops when the parking bay is left
TC_E_20 Stops when the cable is pulled at the car
TC_E_21 Stops from afar
TC_E_22 Stops when the car takes no more
TC_E_26 The cable is pulled at the car and comes back
TC_E_29 Status of a running transaction, messages wait
TC_E_30 Status of a running transaction, none wait
TC_E_31 Status of an ended transaction, messages wait
TC_E_33 Status without a transaction, messages wait
TC_E_34 Status without a transaction, none wait
TC_E_38 The car is not ready
TC_E_39 Deauthorised: no cable in time
TC_E_53 The sequence begins at 0 again
# F: Remote control
TC_F_01 Remote start, cable first
TC_F_02 Remote start first, the token is asked about
TC_F_03 Remote start first, the token is not asked about
TC_F_04 Remote start, and no cable in time
TC_F_06 Unlocking an idle connector
TC_F_11 Triggered meter values of an EVSE
TC_F_12 Triggered meter values of all EVSEs
TC_F_13 Triggered transaction event of an EVSE
TC_F_14 Triggered transaction events of all EVSEs
TC_F_15 Triggered status of the log
TC_F_18 Triggered status of the firmware
TC_F_20 Triggered heartbeat
TC_F_23 Triggered status of a free connector
TC_F_24 Triggered status of an occupied connector
TC_F_27 A trigger that is not implemented
# G: Availability
TC_G_03 An EVSE is taken out of service
TC_G_04 An EVSE is put back into service
TC_G_05 A station is taken out of service
TC_G_06 A station is put back into service
TC_G_07 A connector is taken out of service
TC_G_08 A connector is put back into service
TC_G_11 An EVSE, after the session that runs
TC_G_14 A station, after the session that runs
TC_G_17 A connector, after the session that runs
TC_G_20 A lock that fails is told by an event
# H: Reservation
TC_H_01 An EVSE is reserved
TC_H_07 A reservation expires
TC_H_08 Any EVSE is reserved
TC_H_14 As many reservations as EVSEs
TC_H_15 A kind of connector is reserved
TC_H_17 A reservation is cancelled
TC_H_19 A reservation is used by another token of the group
TC_H_20 A fault ends a reservation
TC_H_22 Reserving is refused
# I: Tariff and cost
TC_I_01 The running cost is told while charging
TC_I_02 The total cost is told at the end
# J: Meter values
TC_J_01 Clock-aligned, no transaction
TC_J_02 Clock-aligned, within a transaction
TC_J_03 Clock-aligned, with the end
TC_J_04 Clock-aligned, signed
TC_J_07 Sampled, with the start
TC_J_08 Sampled, the begin told once the EVSE is known
TC_J_09 Sampled, on the way
TC_J_10 Sampled, with the end
TC_J_11 Sampled, signed
# K: Smart charging
TC_K_01 A default profile for one EVSE
TC_K_02 A transaction profile where none runs
TC_K_03 A maximum for the station
TC_K_04 A profile is replaced
TC_K_05 A profile is cleared by its id
TC_K_06 A profile is cleared by level and purpose
TC_K_08 Clearing where there is nothing
TC_K_10 A default profile for all EVSEs
TC_K_15 Profiles are not supported
TC_K_19 A recurring profile
TC_K_29 Profiles of the station are read
TC_K_30 Profiles of an EVSE are read
TC_K_31 All profiles are read
TC_K_32 One profile is read by its id
TC_K_33 Profiles are read by EVSE and level
TC_K_34 Profiles are read by EVSE and source
TC_K_35 Profiles are read by EVSE and purpose
TC_K_36 Profiles are read by EVSE, purpose and level
TC_K_37 A remote start with a profile
TC_K_43 The composite schedule of an EVSE
TC_K_44 The composite schedule of the station
TC_K_48 A limit from outside, no transaction
TC_K_50 A limit from outside is lifted, no transaction
TC_K_51 A limit from outside is lifted, transaction runs
TC_K_52 A limit from outside appears in a report
TC_K_53 The car's needs become a profile
TC_K_55 The car's schedule exceeds the profile
TC_K_57 The car asks again
TC_K_58 We ask the car again
TC_K_59 We ask the car again, and it tells its needs
TC_K_60 A profile for a running transaction
TC_K_70 Several profiles
# L: Firmware
TC_L_01 Signed firmware is installed
TC_L_02 The installation is scheduled
TC_L_03 The download is scheduled
TC_L_04 The signing certificate is revoked
TC_L_05 The signing certificate is invalid
TC_L_06 The signature is wrong
TC_L_07 The download fails
TC_L_08 The verification fails
TC_L_09 The installation fails
TC_L_10 An update takes the place of another
TC_L_11 An update that cannot be cancelled
TC_L_13 An update while a session runs
TC_L_17 Firmware is published by a local controller
TC_L_19 Publishing: the checksum is wrong
TC_L_20 Publishing fails
TC_L_21 Firmware is unpublished
TC_L_22 Unpublishing what is not there
TC_L_23 Unpublishing while it is downloaded
TC_L_24 Publishing: the download fails
# M: Certificates
TC_M_01 Our root certificate is installed
TC_M_02 A manufacturer's root certificate is installed
TC_M_03 A V2G root certificate is installed
TC_M_04 A mobility operator's root certificate is installed
TC_M_05 Installing fails
TC_M_12 Our root certificates are listed
TC_M_13 Manufacturers' root certificates are listed
TC_M_14 V2G root certificates are listed
TC_M_15 The V2G chain is listed
TC_M_16 Mobility operators' root certificates are listed
TC_M_17 Two kinds are listed at once
TC_M_18 All kinds are listed
TC_M_19 No such certificate
TC_M_20 A certificate is deleted
TC_M_21 Deleting fails
TC_M_24 The status of a certificate is asked of us
TC_M_26 A contract certificate for the car
TC_M_28 A contract certificate for the car is renewed
# N: Diagnostics
TC_N_01 Monitors by criteria
TC_N_02 Monitors by variable
TC_N_03 Monitors by criteria and variable
TC_N_05 The monitoring base
TC_N_08 One monitor is set
TC_N_09 Several monitors are set
TC_N_16 The monitoring level
TC_N_17 The monitoring level: refused
TC_N_18 No more monitors are cleared at once than the station takes
TC_N_21 An alert of a hard-wired monitor
TC_N_24 A periodic monitor is set
TC_N_25 A diagnostics log is uploaded
TC_N_27 Customer information: there is some
TC_N_28 Customer information: there is none
TC_N_29 Customer information: refused
TC_N_30 Customer information is told and cleared
TC_N_31 Clearing where there is none
TC_N_32 Customer information is cleared, not told
TC_N_34 A log is refused
TC_N_35 A security log is uploaded
TC_N_36 A second log takes the place of the first
TC_N_44 Clearing monitors is refused
TC_N_46 Clearing a customer, then the local list
TC_N_47 All monitors
TC_N_48 An alert with an empty value
TC_N_49 An alert that is over after a reboot
TC_N_50 A periodic alert
TC_N_60 Monitors by criteria and a list of variables
TC_N_62 Clearing by customer identifier
TC_N_63 Clearing by customer certificate
# O: Display messages
TC_O_01 A message is set
TC_O_02 All messages are read
TC_O_03 All messages are read, there are none
TC_O_04 A message is cleared
TC_O_05 Clearing a message that is not there
TC_O_06 A message for a transaction
TC_O_07 Messages are read by id
TC_O_08 Messages are read by priority
TC_O_09 Messages are read by state
TC_O_10 A message for a transaction that is not there
TC_O_11 Messages are read, none fits
TC_O_12 A message is replaced
TC_O_13 A message with a start
TC_O_14 A message with an end
TC_O_17 The priority is not supported
TC_O_18 The state is not supported
TC_O_19 The format is not supported
TC_O_25 A message for the state of charging
TC_O_26 A message is refused
TC_O_27 A message for a transaction, with a start
TC_O_28 A message for a transaction, with an end
# P: Data transfer
TC_P_02 Vendor messages to us are refused
TC_P_03 Custom data is no hindrance
"""


@dataclass(frozen=True, slots=True)
class Case:
    version: str
    block: str
    name: str
    words: str


def _read(version: str, text: str) -> list[Case]:
    block, found = "", list[Case]()
    for line in text.strip().splitlines():
        if line.startswith("# "):
            block = line.removeprefix("# ")
        else:
            name, _, words = line.partition(" ")
            found.append(Case(version, block, f"{name}_CSMS", words))
    return found


CASES = {(one.version, one.name): one for one in _read("1.6", _CASES_16) + _read("2.0.1", _CASES_201)}

"""Lead codes: SCP-ECG's numbers and what ISO/IEEE 11073-10101 and -10102 make of them."""

from anyecg.readers.dicom.files import SCP_LEADS

SCP_CODES = {name: number for number, name in SCP_LEADS.items()}
"""EN 1064:2005+A1:2007, table 5.6.3-9 (section 3, lead identification)."""

MDC_SYSTEM = "urn:iso:std:iso:11073:10101"

_ECG_POTENTIAL = 2 * 65536 + 256
"""MDC_ECG_ELEC_POTL: partition 2, term 256; a lead's code is its SCP-ECG number more."""


def mdc_number(lead: str) -> int | None:
    """Return the code of a lead's electric potential in ISO/IEEE 11073-10101, or None if the lead has none.

    Examples
    --------
    >>> mdc_number("I"), mdc_number("III"), mdc_number("odd lead")
    (131329, 131389, None)
    """
    return _ECG_POTENTIAL + SCP_CODES[lead] if lead in SCP_CODES else None


def mdc_name(lead: str) -> str | None:
    """Return the reference id of a lead in ISO/IEEE 11073-10102, or None if the lead has none.

    Examples
    --------
    >>> mdc_name("aVR"), mdc_name("odd lead")
    ('MDC_ECG_LEAD_AVR', None)
    """
    return f"MDC_ECG_LEAD_{lead.upper()}" if lead in SCP_CODES else None

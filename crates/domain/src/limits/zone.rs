//! Which clock a person lives by.

use chrono_tz::Tz;
use rlibphonenumber::PHONE_NUMBER_UTIL;

use crate::phone::Region;

/// The zone of a recipient: what is written with the contact, else that of the number's country if it has only one, else
/// the organisation's. A name that is no IANA zone counts as not written; the last resort is UTC.
#[must_use]
pub fn time_zone_of_recipient(
    written: Option<&str>,
    number: Option<&str>,
    organisation: &str,
) -> Tz {
    written
        .and_then(|name| name.parse().ok())
        .or_else(|| number.and_then(time_zone_of_number))
        .or_else(|| organisation.parse().ok())
        .unwrap_or(Tz::UTC)
}

/// The zone of an E.164 number's country, if all of it lives by one clock.
#[must_use]
pub fn time_zone_of_number(number: &str) -> Option<Tz> {
    let number = PHONE_NUMBER_UTIL.parse(number, None).ok()?;
    // Where several countries share a calling code and none knows the range, the one that gave the code its name.
    let region = PHONE_NUMBER_UTIL
        .get_region_for_number(&number)
        .or_else(|| PHONE_NUMBER_UTIL.get_region_for_country_code(number.country_code))?;
    only_zone_of(region)
}

/// Countries with one zone (IANA `zone1970.tab`), and those where all but a few islands or a few villages have one: Spain
/// and Portugal (the islands are within two hours), Malaysia, China, Palestine (clocks agree), Germany, Cyprus, Argentina.
/// Left out are those that span hours: Russia, the United States, Canada, Brazil, Mexico, Australia, Indonesia,
/// Kazakhstan, Mongolia, Congo (DR), Chile, Ecuador, New Zealand, Greenland and the like.
const fn only_zone_of(region: Region) -> Option<Tz> {
    use chrono_tz::{Africa, America, Asia, Atlantic, Europe, Indian};
    Some(match region {
        // Arab countries.
        Region::AE => Asia::Dubai,
        Region::BH => Asia::Bahrain,
        Region::DJ => Africa::Djibouti,
        Region::DZ => Africa::Algiers,
        Region::EG => Africa::Cairo,
        Region::IQ => Asia::Baghdad,
        Region::JO => Asia::Amman,
        Region::KM => Indian::Comoro,
        Region::KW => Asia::Kuwait,
        Region::LB => Asia::Beirut,
        Region::LY => Africa::Tripoli,
        Region::MA => Africa::Casablanca,
        Region::MR => Africa::Nouakchott,
        Region::OM => Asia::Muscat,
        Region::PS => Asia::Hebron,
        Region::QA => Asia::Qatar,
        Region::SA => Asia::Riyadh,
        Region::SD => Africa::Khartoum,
        Region::SO => Africa::Mogadishu,
        Region::SY => Asia::Damascus,
        Region::TN => Africa::Tunis,
        Region::YE => Asia::Aden,
        // Europe.
        Region::AD => Europe::Andorra,
        Region::AL => Europe::Tirane,
        Region::AT => Europe::Vienna,
        Region::BA => Europe::Sarajevo,
        Region::BE => Europe::Brussels,
        Region::BG => Europe::Sofia,
        Region::BY => Europe::Minsk,
        Region::CH => Europe::Zurich,
        Region::CY => Asia::Nicosia,
        Region::CZ => Europe::Prague,
        Region::DE => Europe::Berlin,
        Region::DK => Europe::Copenhagen,
        Region::EE => Europe::Tallinn,
        Region::ES => Europe::Madrid,
        Region::FI => Europe::Helsinki,
        Region::FR => Europe::Paris,
        Region::GB => Europe::London,
        Region::GG => Europe::Guernsey,
        Region::GR => Europe::Athens,
        Region::HR => Europe::Zagreb,
        Region::HU => Europe::Budapest,
        Region::IE => Europe::Dublin,
        Region::IM => Europe::Isle_of_Man,
        Region::IS => Atlantic::Reykjavik,
        Region::IT => Europe::Rome,
        Region::JE => Europe::Jersey,
        Region::LI => Europe::Vaduz,
        Region::LT => Europe::Vilnius,
        Region::LU => Europe::Luxembourg,
        Region::LV => Europe::Riga,
        Region::MC => Europe::Monaco,
        Region::MD => Europe::Chisinau,
        Region::ME => Europe::Podgorica,
        Region::MK => Europe::Skopje,
        Region::MT => Europe::Malta,
        Region::NL => Europe::Amsterdam,
        Region::NO => Europe::Oslo,
        Region::PL => Europe::Warsaw,
        Region::PT => Europe::Lisbon,
        Region::RO => Europe::Bucharest,
        Region::RS => Europe::Belgrade,
        Region::SE => Europe::Stockholm,
        Region::SI => Europe::Ljubljana,
        Region::SK => Europe::Bratislava,
        Region::SM => Europe::San_Marino,
        Region::TR => Europe::Istanbul,
        Region::UA => Europe::Kyiv,
        // Asia.
        Region::AF => Asia::Kabul,
        Region::AM => Asia::Yerevan,
        Region::AZ => Asia::Baku,
        Region::BD => Asia::Dhaka,
        Region::BN => Asia::Brunei,
        Region::BT => Asia::Thimphu,
        Region::CN => Asia::Shanghai,
        Region::GE => Asia::Tbilisi,
        Region::HK => Asia::Hong_Kong,
        Region::IL => Asia::Jerusalem,
        Region::IN => Asia::Kolkata,
        Region::IR => Asia::Tehran,
        Region::JP => Asia::Tokyo,
        Region::KG => Asia::Bishkek,
        Region::KH => Asia::Phnom_Penh,
        Region::KR => Asia::Seoul,
        Region::LA => Asia::Vientiane,
        Region::LK => Asia::Colombo,
        Region::MM => Asia::Yangon,
        Region::MO => Asia::Macau,
        Region::MV => Indian::Maldives,
        Region::MY => Asia::Kuala_Lumpur,
        Region::NP => Asia::Kathmandu,
        Region::PH => Asia::Manila,
        Region::PK => Asia::Karachi,
        Region::SG => Asia::Singapore,
        Region::TH => Asia::Bangkok,
        Region::TJ => Asia::Dushanbe,
        Region::TM => Asia::Ashgabat,
        Region::TW => Asia::Taipei,
        Region::UZ => Asia::Tashkent,
        Region::VN => Asia::Ho_Chi_Minh,
        // Africa.
        Region::AO => Africa::Luanda,
        Region::BF => Africa::Ouagadougou,
        Region::BI => Africa::Bujumbura,
        Region::BJ => Africa::PortoNovo,
        Region::BW => Africa::Gaborone,
        Region::CF => Africa::Bangui,
        Region::CG => Africa::Brazzaville,
        Region::CI => Africa::Abidjan,
        Region::CM => Africa::Douala,
        Region::CV => Atlantic::Cape_Verde,
        Region::ER => Africa::Asmara,
        Region::ET => Africa::Addis_Ababa,
        Region::GA => Africa::Libreville,
        Region::GH => Africa::Accra,
        Region::GM => Africa::Banjul,
        Region::GN => Africa::Conakry,
        Region::GQ => Africa::Malabo,
        Region::GW => Africa::Bissau,
        Region::KE => Africa::Nairobi,
        Region::LR => Africa::Monrovia,
        Region::LS => Africa::Maseru,
        Region::MG => Indian::Antananarivo,
        Region::ML => Africa::Bamako,
        Region::MU => Indian::Mauritius,
        Region::MW => Africa::Blantyre,
        Region::MZ => Africa::Maputo,
        Region::NA => Africa::Windhoek,
        Region::NE => Africa::Niamey,
        Region::NG => Africa::Lagos,
        Region::RW => Africa::Kigali,
        Region::SC => Indian::Mahe,
        Region::SL => Africa::Freetown,
        Region::SN => Africa::Dakar,
        Region::SS => Africa::Juba,
        Region::ST => Africa::Sao_Tome,
        Region::SZ => Africa::Mbabane,
        Region::TD => Africa::Ndjamena,
        Region::TG => Africa::Lome,
        Region::TZ => Africa::Dar_es_Salaam,
        Region::UG => Africa::Kampala,
        Region::ZA => Africa::Johannesburg,
        Region::ZM => Africa::Lusaka,
        Region::ZW => Africa::Harare,
        // The Americas.
        Region::AR => America::Argentina::Buenos_Aires,
        Region::BO => America::La_Paz,
        Region::CO => America::Bogota,
        Region::CR => America::Costa_Rica,
        Region::CU => America::Havana,
        Region::DO => America::Santo_Domingo,
        Region::GT => America::Guatemala,
        Region::GY => America::Guyana,
        Region::HN => America::Tegucigalpa,
        Region::HT => America::PortauPrince,
        Region::JM => America::Jamaica,
        Region::NI => America::Managua,
        Region::PA => America::Panama,
        Region::PE => America::Lima,
        Region::PY => America::Asuncion,
        Region::SR => America::Paramaribo,
        Region::SV => America::El_Salvador,
        Region::TT => America::Port_of_Spain,
        Region::UY => America::Montevideo,
        Region::VE => America::Caracas,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_tells_the_clock_where_its_country_has_one() {
        for (number, zone) in [
            ("+201001234567", Some("Africa/Cairo")),
            ("+966512345678", Some("Asia/Riyadh")),
            ("+971501234567", Some("Asia/Dubai")),
            ("+212612345678", Some("Africa/Casablanca")),
            ("+4915112345678", Some("Europe/Berlin")),
            ("+447911123456", Some("Europe/London")),
            ("+12025550123", None),
            ("+79161234567", None),
            ("+5511987654321", None),
            ("72345", None),
            ("", None),
        ] {
            let found = time_zone_of_number(number).map(|zone| zone.name());
            assert_eq!(found, zone, "{number}");
        }
    }

    #[test]
    fn what_is_written_with_the_contact_comes_first_and_the_organisation_last() {
        let zone = |written, number| time_zone_of_recipient(written, number, "Africa/Cairo").name();
        let saudi = Some("+966512345678");
        assert_eq!(zone(Some("Europe/Paris"), saudi), "Europe/Paris");
        assert_eq!(zone(Some("Not/A_Zone"), saudi), "Asia/Riyadh");
        assert_eq!(zone(None, saudi), "Asia/Riyadh");
        assert_eq!(zone(None, Some("+12025550123")), "Africa/Cairo");
        assert_eq!(zone(None, None), "Africa/Cairo");
        assert_eq!(time_zone_of_recipient(None, None, "nowhere"), Tz::UTC);
    }
}
